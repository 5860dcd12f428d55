#![doc = include_str!("../README.md")]

pub mod sample;
pub mod seed;
pub mod store;
pub mod catalog;
pub mod split;
pub mod statistics;
pub mod shard;
pub mod manifest;
pub mod order;
