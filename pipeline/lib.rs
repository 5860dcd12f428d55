//! How Forebay runs.

pub mod config;
pub mod plan;
pub mod prepare;
pub mod verify;
pub mod inspect;
pub mod feed;
pub mod bench;
pub mod train;
pub mod flow;
pub mod meter;
pub mod usage;
pub mod report;
pub mod demo;
pub mod cli;
