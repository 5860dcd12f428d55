//! The instructions that a machine has, and functions that are compiled for each of them.

#[cfg(target_arch = "aarch64")]
use super::neon::HasNeon;
#[cfg(target_arch = "x86_64")]
use super::x86::{HasAvx2, HasAvx512};

/// The instructions that kernels may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// What every machine has.
    Scalar,
    /// 128-bit vectors.
    #[cfg(target_arch = "aarch64")]
    Neon(HasNeon),
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2(HasAvx2),
    /// 512-bit vectors of bytes and words.
    #[cfg(target_arch = "x86_64")]
    Avx512(HasAvx512),
}

impl Isa {
    /// All that this machine has, the best one last.
    pub(crate) fn all() -> impl Iterator<Item = Isa> {
        #[cfg(target_arch = "x86_64")]
        let vectors = [HasAvx2::find().map(Isa::Avx2), HasAvx512::find().map(Isa::Avx512)];
        #[cfg(target_arch = "aarch64")]
        let vectors = [HasNeon::find().map(Isa::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let vectors: [Option<Isa>; 0] = [];
        std::iter::once(Isa::Scalar).chain(vectors.into_iter().flatten())
    }

    /// The best that this machine has.
    pub(crate) fn detect() -> Isa {
        Isa::all().last().expect("each machine has one")
    }
}

/// Makes a function whose first argument is the [`Isa`] that it runs with: of a loop, of which the compiler makes vectors
/// (`name = loop(arguments)`), or of a kernel over [`Lanes`](super::lanes::Lanes) and its scalar twin
/// (`name = kernel / twin(arguments)`). Loops and kernels are to be inlined always.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* $name:ident = $loop:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        for_each_isa! {
            @ $(#[$doc])* $name($($argument: $type),*) $(-> $result)?, _proof,
            $loop($($argument),*), $loop($($argument),*), $loop($($argument),*), $loop($($argument),*)
        }
    };
    ($(#[$doc:meta])* $name:ident = $kernel:ident / $twin:ident($($argument:ident: $type:ty),*)) => {
        for_each_isa! {
            @ $(#[$doc])* $name($($argument: $type),*), proof,
            $twin($($argument),*),
            $kernel::<$crate::simd::neon::Neon>(proof, $($argument),*),
            $kernel::<$crate::simd::x86::Avx2>(proof, $($argument),*),
            $kernel::<$crate::simd::x86::Avx512>(proof, $($argument),*)
        }
    };
    (
        @ $(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?, $proof:ident,
        $scalar:expr, $neon:expr, $avx2:expr, $avx512:expr
    ) => {
        $(#[$doc])*
        pub(super) fn $name(isa: $crate::simd::isa::Isa, $($argument: $type),*) $(-> $result)? {
            use $crate::simd::isa::Isa;
            #[cfg(target_arch = "x86_64")]
            use $crate::simd::x86::{HasAvx2, HasAvx512};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,bmi2")]
            fn avx2($proof: HasAvx2, $($argument: $type),*) $(-> $result)? {
                $avx2
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi2")]
            fn avx512($proof: HasAvx512, $($argument: $type),*) $(-> $result)? {
                $avx512
            }
            match isa {
                Isa::Scalar => $scalar,
                // What every machine of this kind has.
                #[cfg(target_arch = "aarch64")]
                Isa::Neon($proof) => $neon,
                // SAFETY: the machine has the instructions that the function needs.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code, reason = "see above")]
                Isa::Avx2(proof) => unsafe { avx2(proof, $($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code, reason = "see above")]
                Isa::Avx512(proof) => unsafe { avx512(proof, $($argument),*) },
            }
        }
    };
}
pub(crate) use for_each_isa;
