//! embeddery-engine
