//! What many trainings are put together for.

pub mod ensemble;
pub mod folds;
