//! Kernels over pixels for the instructions that the machine has, chosen at run time.

pub(crate) mod isa;
pub(crate) mod lanes;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod stream;
#[cfg(target_arch = "x86_64")]
pub(crate) mod weigh;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;
