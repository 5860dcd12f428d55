//! How Forebay runs.

pub mod config;
