#![doc = include_str!("../README.md")]

pub mod stage;
pub mod chain;
pub mod decode;
pub mod crop;
pub mod resize;
pub mod augment;
pub mod fingerprint;
pub mod views;
pub mod normalize;
pub mod balance;
pub mod shuffle;
pub mod group;
pub mod collate;
pub mod encode;
pub mod facts;
pub mod weight;
