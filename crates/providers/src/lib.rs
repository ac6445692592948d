//! embeddery-providers
