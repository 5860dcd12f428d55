//! Kernels over pixels for the instructions that the machine has, chosen at run time.

pub(crate) mod isa;
pub(crate) mod lanes;
