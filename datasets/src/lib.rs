#![doc = include_str!("../README.md")]

pub mod sample;
pub mod seed;
pub mod words;
pub mod escape;
pub mod panics;
pub mod store;
pub mod blocks;
pub mod catalog;
pub mod duplicates;
pub mod split;
pub mod folds;
pub mod groups;
pub mod statistics;
pub mod order;
pub mod columns;
pub mod shard;
mod sealed;
pub mod levels;
pub mod manifest;
pub mod formats;
