#![doc = include_str!("../README.md")]

pub mod stage;
pub mod decode;
pub mod resize;
pub mod crop;
pub mod augment;
pub mod encode;
pub mod balance;
pub mod group;
pub mod shuffle;
pub mod collate;
pub mod normalize;
