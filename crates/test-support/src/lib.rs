//! embeddery-test-support
