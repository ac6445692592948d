//! One file per architecture, each written in the order of its network.

pub(crate) mod bert;
