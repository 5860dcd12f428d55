#![doc = include_str!("../README.md")]

pub mod balance;
pub mod collate;
pub mod stage;
pub mod group;
pub mod shuffle;
