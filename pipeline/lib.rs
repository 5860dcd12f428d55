#![doc = include_str!("README.md")]

pub mod commands;
pub mod trials;
pub mod model;
pub mod train;
pub mod prepare;
pub mod inspection;
pub mod weights;
pub mod feed;
pub mod predictions;
pub mod hub;
pub mod report;
pub mod plan;
pub mod options;
pub mod flow;
pub mod demo;
