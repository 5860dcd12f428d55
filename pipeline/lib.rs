#![doc = include_str!("README.md")]

pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
pub mod feed;
pub mod flow;
pub mod inspect;
pub mod meter;
pub mod model;
pub mod plan;
pub mod prepare;
pub mod report;
pub mod train;
pub mod usage;
pub mod verify;
