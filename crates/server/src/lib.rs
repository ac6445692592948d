//! embeddery-server
