#![doc = include_str!("../README.md")]

pub mod catalog;
pub mod sample;
pub mod seed;
pub mod split;
pub mod statistics;
pub mod store;
