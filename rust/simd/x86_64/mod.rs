//! AVX2 and AVX-512, each with and without VNNI.
//!
//! Each token's field is private to this module, where it is made by `detect` alone. On that rests every
//! `// SAFETY:` reason of this folder.

mod avx2;
mod avx512;
#[cfg(test)]
mod emulated;

pub(crate) use avx2::{Avx2, AvxVnni};
pub(crate) use avx512::{Avx512, Avx512Vnni};
#[cfg(test)]
pub(crate) use emulated::Emulated;

/// One of the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum X86_64 {
    Avx2(Avx2),
    AvxVnni(AvxVnni),
    Avx512(Avx512),
    Avx512Vnni(Avx512Vnni),
}

impl X86_64 {
    /// All that this CPU has, the slowest first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        let tokens = [
            Avx2::detect().map(Self::Avx2),
            AvxVnni::detect().map(Self::AvxVnni),
            Avx512::detect().map(Self::Avx512),
            Avx512Vnni::detect().map(Self::Avx512Vnni),
        ];
        tokens.into_iter().flatten()
    }

    /// As [`FORCE`](super::FORCE) spells it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Avx2(_) => "avx2",
            Self::AvxVnni(_) => "avxvnni",
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
/// its instruction set. Those with VNNI may be left out: the body without it then runs.
macro_rules! per_x86_64 {
    (@vnni $features:literal, $token:ident, $simd:ident, $without:ident, ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        // SAFETY: the token is proof of the instruction set that VNNI extends.
        unsafe { $without($simd.without_vnni(), $($arg),*) }
    };
    (
        @vnni $features:literal, $token:ident, $simd:ident, $without:ident, ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?,
        $body:path
    ) => {{
        #[target_feature(enable = $features)]
        fn vnni(simd: $crate::simd::$token, $($arg: $ty),*) $(-> $ret)? {
            $body(simd, $($arg),*)
        }
        // SAFETY: the token is proof that the CPU has these instructions.
        unsafe { vnni($simd, $($arg),*) }
    }};
    (
        $(#[$meta:meta])*
        fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? {
            avx2 => $avx2:path,
            $(avxvnni => $avxvnni:path,)?
            avx512 => $avx512:path
            $(, avx512vnni => $avx512vnni:path)? $(,)?
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
                $crate::simd::X86_64::AvxVnni(simd) => $crate::simd::per_x86_64!(
                    @vnni "avx2,fma,avxvnni",
                    AvxVnni, simd, avx2, ($($arg: $ty),*) $(-> $ret)? $(, $avxvnni)?
                ),
                $crate::simd::X86_64::Avx512Vnni(simd) => $crate::simd::per_x86_64!(
                    @vnni "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
                    Avx512Vnni, simd, avx512, ($($arg: $ty),*) $(-> $ret)? $(, $avx512vnni)?
                ),
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
            avxvnni => all_body,
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

    /// Without VNNI, four products must fit 16 bits.
    fn fitting(token: X86_64, y: &[u8; 128], x: &[u8; 128]) -> ([u8; 128], [u8; 128]) {
        match token {
            X86_64::Avx2(_) | X86_64::Avx512(_) => {
                (y.map(|y| y >> 1), x.map(|x| (x.cast_signed() >> 1).cast_unsigned()))
            }
            X86_64::AvxVnni(_) | X86_64::Avx512Vnni(_) => (*y, *x),
        }
    }

    proptest! {
        #[test]
        fn all_sets_compute_what_is_defined(
            y in prop::collection::vec(any::<u8>(), 128),
            x in prop::collection::vec(any::<u8>(), 128),
            // The extremes are rare among random bytes.
            same in prop::option::of((any::<bool>(), any::<bool>())),
            floats in prop::array::uniform16(-2.0_f32..2.0),
        ) {
            let (mut y, mut x): ([u8; 128], [u8; 128]) = (y.try_into().unwrap(), x.try_into().unwrap());
            if let Some((y_is_255, x_is_negative)) = same {
                y[..96].fill(if y_is_255 { 255 } else { 128 });
                x[..96].fill(if x_is_negative { 128 } else { 127 });
            }
            for token in X86_64::available() {
                let (y, x) = fitting(token, &y, &x);
                let bits = |found: [[f32; 16]; 2]| found.map(|floats| floats.map(f32::to_bits));
                let expected = all_body(Emulated::<16>, &y, &x, &floats);
                prop_assert_eq!(bits(all_body(Emulated::<8>, &y, &x, &floats)), bits(expected));
                prop_assert_eq!(bits(all_methods(token, &y, &x, &floats)), bits(expected), "{}", token.name());
            }
        }
    }
}
