#![doc = include_str!("../README.md")]

pub mod augment;
pub mod balance;
pub mod chain;
pub mod collate;
pub mod crop;
pub mod decode;
pub mod encode;
pub mod group;
pub mod normalize;
pub mod resize;
pub mod shuffle;
pub mod stage;
pub mod weight;
