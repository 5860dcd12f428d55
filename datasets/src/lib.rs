#![doc = include_str!("../README.md")]

pub mod manifest;
pub mod order;
pub mod sample;
pub mod seed;
pub mod shard;
