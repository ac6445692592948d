//! embeddery-gateway
