//! Forebay.

pub mod demo;
