#![doc = include_str!("README.md")]

pub mod commands;
pub mod demo;
pub mod feed;
pub mod flow;
pub mod hub;
pub mod options;
pub mod plan;
pub mod prepare;
pub mod report;
pub mod train;
pub mod weights;
