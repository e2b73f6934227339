//! Instruction sets, and the vectors that kernels are written over.
//!
//! An instruction set is a token: [`Portable`], or on x86-64 `Avx2`, `AvxVnni`, `Avx512` or `Avx512Vnni`. Only detection
//! makes the latter, so a value is proof that the CPU has the instructions. That is why the methods of
//! [`Simd`] and `Products`, an instruction or a few each, are safe to call from anywhere. They are fast only
//! where they are inlined into a function that is compiled for the instruction set: [`per_isa`] makes one for
//! each set from one generic body, and `per_x86_64` from a body for each.
//!
//! This folder holds all `unsafe` code of the kernels.

use crate::{Error, Result};

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use portable::Portable;
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use x86_64::Emulated;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Avx2, Avx512, Avx512Vnni, AvxVnni, Products, X86_64, per_x86_64};

/// Environment variable that forces an instruction set: `portable`, `avx2`, `avxvnni`, `avx512` or
/// `avx512vnni`.
pub const FORCE: &str = "FASTTRIPLET_ISA";

/// An instruction set that this CPU has.
///
/// It decides how fast an answer comes, never what the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Token);

/// What an [`Isa`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    X86_64(X86_64),
}

impl Isa {
    /// What every CPU has.
    pub const PORTABLE: Self = Self(Token::Portable(Portable));

    /// All that this CPU has, the slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut available = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        available.extend(X86_64::available().map(|token| Self(Token::X86_64(token))));
        available
    }

    /// The fastest that this CPU has, or the one that [`FORCE`] names.
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

    /// As [`FORCE`] spells it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Token::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Token::X86_64(token) => token.name(),
        }
    }

    pub(crate) const fn token(self) -> Token {
        self.0
    }
}

/// The vectors of an instruction set.
///
/// Loads take what they need from the front of a slice, and panic where it is too short.
pub(crate) trait Simd: Copy {
    /// Eight float64, in as many registers as they take: compilers make two passes of it where the choice is
    /// left to them.
    type F64x8: Copy;

    fn widen(self, from: &[f32; 8]) -> Self::F64x8;
    fn add(self, a: Self::F64x8, b: Self::F64x8) -> Self::F64x8;
    fn subtract(self, a: Self::F64x8, b: Self::F64x8) -> Self::F64x8;
    fn multiply(self, a: Self::F64x8, b: Self::F64x8) -> Self::F64x8;
    fn to_array(self, x: Self::F64x8) -> [f64; 8];

    /// One register of 16-bit numbers.
    type U16s: Copy;
    /// At most 32.
    const U16_LANES: usize;

    fn splat_u16(self, x: u16) -> Self::U16s;
    fn load_u16(self, from: &[u16]) -> Self::U16s;
    fn xor_u16(self, a: Self::U16s, b: Self::U16s) -> Self::U16s;
    /// The low halves of the products.
    fn multiply_u16(self, a: Self::U16s, b: Self::U16s) -> Self::U16s;
    /// A bit for each lane that is below the limit's.
    fn below_u16(self, x: Self::U16s, limit: Self::U16s) -> u32;

    /// Lanes of one register of float32, at most 32.
    const F32_LANES: usize;

    /// A bit for each of the first [`Self::F32_LANES`] numbers that is strictly between the two.
    fn between_f32(self, from: &[f32], low: f32, high: f32) -> u32;
    /// The same for the sums of these numbers and one more, and a low and a high number for each.
    fn sums_between_f32(self, from: &[f32], more: f32, low: &[f32], high: &[f32]) -> u32;
}

/// Defines a function that takes the [`Isa`] to run on as its first argument, from a body that takes the
/// token instead and is compiled once for each instruction set.
///
/// Bodies are `#[inline(always)]` functions, generic over [`Simd`]. VNNI makes no difference to them.
macro_rules! per_isa {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? => $body:path
    ) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            $crate::simd::per_x86_64! {
                fn x86_64($($arg: $ty),*) $(-> $ret)? { avx2 => $body, avx512 => $body }
            }
            match isa.token() {
                $crate::simd::Token::Portable(simd) => $body(simd, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Token::X86_64(token) => x86_64(token, $($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    per_isa! {
        /// The results of all methods, as bits.
        fn all_methods(x: &[f32; 8], y: &[f32; 8], floats: &[f32; 16], words: &[u16; 32]) -> Vec<u64> => all_body
    }

    #[inline(always)]
    fn all_body<S: Simd>(
        simd: S,
        x: &[f32; 8],
        y: &[f32; 8],
        floats: &[f32; 16],
        words: &[u16; 32],
    ) -> Vec<u64> {
        let (a, b) = (simd.widen(x), simd.widen(y));
        let results = [simd.add(a, b), simd.subtract(a, b), simd.multiply(a, b)];
        let mut bits: Vec<u64> =
            results.into_iter().flat_map(|z| simd.to_array(z)).map(f64::to_bits).collect();
        let mut below = 0;
        for first in (0..words.len()).step_by(S::U16_LANES) {
            let mixed = simd.xor_u16(simd.load_u16(&words[first..]), simd.splat_u16(words[0]));
            let mixed = simd.multiply_u16(mixed, simd.splat_u16(words[1]));
            below |= simd.below_u16(mixed, simd.splat_u16(words[2])) << first;
        }
        let (mut between, mut sums) = (0, 0);
        let edges = |by: f32| floats.map(|float| by - 0.5 * float);
        for first in (0..floats.len()).step_by(S::F32_LANES) {
            between |= simd.between_f32(&floats[first..], x[0], y[0]) << first;
            let (low, high) = (edges(x[2]), edges(y[2]));
            sums |= simd.sums_between_f32(&floats[first..], x[1], &low[first..], &high[first..]) << first;
        }
        bits.extend([below, between, sums].map(u64::from));
        bits
    }

    proptest! {
        #[test]
        fn all_sets_compute_the_same(
            x in prop::array::uniform8(-2.0_f32..0.5),
            y in prop::array::uniform8(-0.5_f32..2.0),
            floats in prop::array::uniform16(-2.0_f32..2.0),
            words in prop::array::uniform32(any::<u16>()),
        ) {
            let expected = all_methods(Isa::PORTABLE, &x, &y, &floats, &words);
            for isa in Isa::available() {
                prop_assert_eq!(&all_methods(isa, &x, &y, &floats, &words), &expected, "{}", isa.name());
            }
        }
    }
}
