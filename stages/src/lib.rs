#![doc = include_str!("../README.md")]

pub mod stage;
mod simd;
mod spare;
pub mod chain;
pub mod decode;
pub mod crop;
mod axis;
#[cfg(target_arch = "x86_64")]
mod bilinear;
pub mod resample;
mod resized_rows;
pub mod resize;
pub mod augment;
pub mod fingerprint;
pub mod views;
pub mod normalize;
pub mod balance;
pub mod shuffle;
pub mod group;
pub mod collate;
pub mod batches;
mod planes;
pub mod encode;
pub mod facts;
pub mod weight;
