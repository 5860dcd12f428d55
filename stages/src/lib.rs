#![doc = include_str!("../README.md")]

pub mod augment;
pub mod collate;
pub mod crop;
pub mod decode;
pub mod encode;
pub mod normalize;
pub mod resize;
pub mod stage;
