#![doc = include_str!("../README.md")]

pub mod hub;
pub mod redis;
pub mod tiny;
pub mod vendors;
