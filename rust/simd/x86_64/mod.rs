//! AVX2, AVX-512 and AVX-512 VNNI.
//!
//! Each token's field is private to this module, where it is made by `detect` alone. On that rests every
//! `// SAFETY:` reason of this folder.

mod avx2;
mod avx512;

pub(crate) use avx2::Avx2;
pub(crate) use avx512::{Avx512, Avx512Vnni};

/// One of the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum X86_64 {
    Avx2(Avx2),
    Avx512(Avx512),
    Avx512Vnni(Avx512Vnni),
}

impl X86_64 {
    /// All that this CPU has, the slowest first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        let tokens = [
            Avx2::detect().map(Self::Avx2),
            Avx512::detect().map(Self::Avx512),
            Avx512Vnni::detect().map(Self::Avx512Vnni),
        ];
        tokens.into_iter().flatten()
    }

    /// As [`FORCE`](super::FORCE) spells it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Avx2(_) => "avx2",
            Self::Avx512(_) => "avx512",
            Self::Avx512Vnni(_) => "avx512vnni",
        }
    }
}

/// Sums of products of whole numbers, in one register of 32-bit lanes. A lane of codes holds four of 8 bits
/// or two of 16.
///
/// Loads and stores take what they need from the front of a slice, and panic where it is too short.
pub(crate) trait Products: Copy {
    type Vector: Copy;
    /// Of 32 bits.
    const LANES: usize;

    fn splat(self, x: i32) -> Self::Vector;
    fn load(self, from: &[u8]) -> Self::Vector;

    /// Adds to each lane of `sum` the products of two lanes of unsigned bytes `y` and signed bytes `x`.
    /// Without VNNI, four products must fit 16 bits.
    fn add_products_of_bytes(
        self,
        sum: Self::Vector,
        y: [Self::Vector; 2],
        x: [Self::Vector; 2],
    ) -> Self::Vector;

    /// Adds to each lane of `sum` the products of two lanes of signed 16-bit numbers.
    fn add_products_of_words(
        self,
        sum: Self::Vector,
        y: [Self::Vector; 2],
        x: [Self::Vector; 2],
    ) -> Self::Vector;

    /// Writes `from - sums * (factor * factors)`, all in float32, lane by lane.
    fn subtract_scaled(self, from: &[f32], sums: Self::Vector, factor: f32, factors: &[f32], to: &mut [f32]);
}

/// Defines a function that takes one of the tokens as its first argument, from a body for each, compiled for
/// its instruction set. The last may be left out: with VNNI, the body of AVX-512 then runs.
macro_rules! per_x86_64 {
    (@vnni $simd:ident, $avx512:ident, ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        // SAFETY: the token is proof of AVX-512, of which VNNI is an extension.
        unsafe { $avx512($simd.avx512(), $($arg),*) }
    };
    (@vnni $simd:ident, $avx512:ident, ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?, $body:path) => {{
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn vnni(simd: $crate::simd::Avx512Vnni, $($arg: $ty),*) $(-> $ret)? {
            $body(simd, $($arg),*)
        }
        // SAFETY: the token is proof that the CPU has these instructions.
        unsafe { vnni($simd, $($arg),*) }
    }};
    (
        $(#[$meta:meta])*
        fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? {
            avx2 => $avx2:path,
            avx512 => $avx512:path
            $(, avx512vnni => $vnni:path)? $(,)?
        }
    ) => {
        $(#[$meta])*
        fn $name(token: $crate::simd::X86_64, $($arg: $ty),*) $(-> $ret)? {
            #[target_feature(enable = "avx2,fma")]
            fn avx2(simd: $crate::simd::Avx2, $($arg: $ty),*) $(-> $ret)? {
                $avx2(simd, $($arg),*)
            }
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512(simd: $crate::simd::Avx512, $($arg: $ty),*) $(-> $ret)? {
                $avx512(simd, $($arg),*)
            }
            match token {
                // SAFETY: the token is proof that the CPU has these instructions.
                $crate::simd::X86_64::Avx2(simd) => unsafe { avx2(simd, $($arg),*) },
                // SAFETY: as above.
                $crate::simd::X86_64::Avx512(simd) => unsafe { avx512(simd, $($arg),*) },
                $crate::simd::X86_64::Avx512Vnni(simd) => {
                    $crate::simd::per_x86_64!(@vnni simd, avx512, ($($arg: $ty),*) $(-> $ret)? $(, $vnni)?)
                }
            }
        }
    };
}
pub(crate) use per_x86_64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    per_x86_64! {
        /// Sums of the products of two lanes of each kind of code, then these as floats.
        fn all_methods(y: &[u8; 128], x: &[u8; 128], floats: &[f32; 16]) -> [[f32; 16]; 2] {
            avx2 => all_body,
            avx512 => all_body,
            avx512vnni => all_body,
        }
    }

    #[inline(always)]
    fn all_body<S: Products>(simd: S, y: &[u8; 128], x: &[u8; 128], floats: &[f32; 16]) -> [[f32; 16]; 2] {
        let mut found = [[0.0; 16]; 2];
        for first in (0..16).step_by(S::LANES) {
            let load = |from: &[u8; 128]| [simd.load(&from[4 * first..]), simd.load(&from[64 + 4 * first..])];
            let bytes = simd.add_products_of_bytes(simd.splat(-7), load(y), load(x));
            let words = simd.add_products_of_words(simd.splat(-7), load(y), load(x));
            for (found, sums) in found.iter_mut().zip([bytes, words]) {
                let floats = &floats[first..];
                simd.subtract_scaled(floats, sums, 2.0, floats, &mut found[first..]);
            }
        }
        found
    }

    proptest! {
        #[test]
        fn all_sets_compute_the_same(
            y in prop::collection::vec(0_u8..128, 128),
            x in prop::collection::vec(-63_i8..64, 128),
            floats in prop::array::uniform16(-2.0_f32..2.0),
        ) {
            let (y, x): (Vec<u8>, Vec<u8>) = (y, x.into_iter().map(i8::cast_unsigned).collect());
            let (y, x): (&[u8; 128], &[u8; 128]) = (y.first_chunk().unwrap(), x.first_chunk().unwrap());
            let word = |codes: &[u8; 128], at: usize| i32::from(i16::from_ne_bytes([codes[at], codes[at + 1]]));
            let expected = |lane: usize, term: &dyn Fn(usize) -> i32, size: usize| {
                let both = (4 * lane..4 * lane + 4).chain(64 + 4 * lane..68 + 4 * lane);
                let sum = both.step_by(size).map(term).fold(-7_i32, i32::wrapping_add);
                (floats[lane] - sum as f32 * (2.0 * floats[lane])).to_bits()
            };
            for token in X86_64::available() {
                let [bytes, words] = all_methods(token, y, x, &floats);
                for lane in 0..16 {
                    let byte = |at: usize| i32::from(y[at]) * i32::from(x[at].cast_signed());
                    let product = |at: usize| word(y, at) * word(x, at);
                    prop_assert_eq!(bytes[lane].to_bits(), expected(lane, &byte, 1), "{}", token.name());
                    prop_assert_eq!(words[lane].to_bits(), expected(lane, &product, 2), "{}", token.name());
                }
            }
        }
    }
}
