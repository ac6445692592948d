#![doc = include_str!("../README.md")]

pub mod redis;
pub mod sqlite;
