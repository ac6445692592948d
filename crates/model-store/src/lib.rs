//! embeddery-model-store
