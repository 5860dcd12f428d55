#![doc = include_str!("../README.md")]

pub mod collate;
pub mod stage;
pub mod train;
