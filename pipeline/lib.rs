//! How Forebay runs.

pub mod config;
pub mod feed;
pub mod flow;
pub mod meter;
pub mod plan;
pub mod prepare;
pub mod verify;
