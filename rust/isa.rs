//! Which instruction set the kernels run on: detected once a call, or forced for tests.

use crate::{Error, Result};

/// Environment variable that forces a path: `portable`, `avx2`, `avx512` or `avx512vnni`.
pub const FORCE: &str = "FASTTRIPLET_ISA";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// An instruction set that this CPU has: a value cannot be made for one that it lacks.
///
/// It decides how fast an answer comes, never what the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

impl Isa {
    /// What every CPU has.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// All that this CPU has, the plainest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut kinds = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kinds.push(Self(Kind::Avx2));
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    kinds.push(Self(Kind::Avx512));
                    if is_x86_feature_detected!("avx512vnni") {
                        kinds.push(Self(Kind::Avx512Vnni));
                    }
                }
            }
        }
        kinds
    }

    /// The best this CPU has, or what [`FORCE`] names.
    pub fn choose() -> Result<Self> {
        let available = Self::available();
        match std::env::var(FORCE) {
            Err(_) => Ok(available[available.len() - 1]),
            Ok(name) => available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
                let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
                Error::Value(format!("{FORCE}={name:?}: this machine has {}", names.join(", ")))
            }),
        }
    }

    pub(crate) const fn kind(self) -> Kind {
        self.0
    }

    /// As [`FORCE`] spells it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512vnni",
        }
    }
}

/// Defines a function whose body is compiled once for each instruction set, and which takes the
/// [`Isa`] to run on as its first argument. Bodies are `#[inline(always)]` functions; there may be one for
/// each, over the set's vectors, or one for all.
macro_rules! per_isa {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? => $body:path
    ) => {
        $crate::isa::per_isa! {
            $(#[$meta])*
            $vis fn $name($($arg: $ty),*) $(-> $ret)? {
                portable => $body,
                avx2 => $body,
                avx512 => $body,
            }
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? {
            portable => $portable:path,
            avx2 => $avx2:path,
            avx512 => $avx512:path,
        }
    ) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                $avx2($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                $avx512($($arg),*)
            }
            match isa.kind() {
                $crate::isa::Kind::Portable => $portable($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this kind exists only where the CPU was seen to have it.
                $crate::isa::Kind::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above; VNNI is found only where the rest of AVX-512 is.
                $crate::isa::Kind::Avx512 | $crate::isa::Kind::Avx512Vnni => unsafe {
                    avx512($($arg),*)
                },
            }
        }
    };
}
pub(crate) use per_isa;
