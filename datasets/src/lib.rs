#![doc = include_str!("../README.md")]

pub mod sample;
pub mod seed;
pub mod shard;
