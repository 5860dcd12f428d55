//! Forebay.

pub mod flow;
pub mod meter;
