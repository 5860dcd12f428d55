#![doc = include_str!("../README.md")]

pub mod catalog;
pub mod escape;
pub mod manifest;
pub mod order;
pub mod sample;
pub mod seed;
pub mod shard;
pub mod split;
pub mod statistics;
pub mod store;
pub mod words;
