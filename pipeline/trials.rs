//! What runs many trainings, and what many trainings are put together for.

pub mod advise;
pub mod ensemble;
pub mod folds;
pub mod search;
pub mod tune;
