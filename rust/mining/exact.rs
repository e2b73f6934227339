//! The definition: squared L2 distance in float64, with every rounding fixed.
//!
//! Each function sums into eight lanes, filled round robin, and then adds halves onto halves:
//! `((0+4)+(2+6)) + ((1+5)+(3+7))`. Products are rounded before they are added (no fused
//! multiply-add). So the value is the same to the last bit on every instruction set, and NumPy can
//! follow it (`tests/reference.py`).

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256d, __m512d};

use crate::isa::per_isa;

/// Lanes of the sum. Rows are padded with zeros to a multiple of this, which changes no sum.
pub const LANES: usize = 8;

per_isa! {
    /// Squared L2 distance of two rows, padded to a multiple of [`LANES`].
    pub fn distance(x: &[f32], y: &[f32]) -> f64 {
        portable => distance_body::<[f64; LANES]>,
        avx2 => distance_body::<[__m256d; 2]>,
        avx512 => distance_body::<__m512d>,
    }
}

per_isa! {
    /// Squared L2 norm of a row, padded to a multiple of [`LANES`].
    pub fn squared_norm(x: &[f32]) -> f64 {
        portable => squared_norm_body::<[f64; LANES]>,
        avx2 => squared_norm_body::<[__m256d; 2]>,
        avx512 => squared_norm_body::<__m512d>,
    }
}

per_isa! {
    /// Divides a row, padded to a multiple of [`LANES`], by its L2 norm in float64 and rounds to float32.
    /// A zero row stays zero.
    pub fn normalize(row: &mut [f32]) {
        portable => normalize_body::<[f64; LANES]>,
        avx2 => normalize_body::<[__m256d; 2]>,
        avx512 => normalize_body::<__m512d>,
    }
}

#[inline(always)]
fn distance_body<V: Wide>(x: &[f32], y: &[f32]) -> f64 {
    let mut sums = V::widen(&[0.0; LANES]);
    for (x, y) in x.as_chunks().0.iter().zip(y.as_chunks().0) {
        let difference = V::widen(x).minus(V::widen(y));
        sums = sums.plus(difference.times(difference));
    }
    fold(sums.lanes())
}

#[inline(always)]
fn squared_norm_body<V: Wide>(x: &[f32]) -> f64 {
    let mut sums = V::widen(&[0.0; LANES]);
    for x in x.as_chunks().0 {
        let x = V::widen(x);
        sums = sums.plus(x.times(x));
    }
    fold(sums.lanes())
}

#[inline(always)]
fn normalize_body<V: Wide>(row: &mut [f32]) {
    let norm = squared_norm_body::<V>(row).sqrt();
    if norm > 0.0 {
        for x in row {
            *x = (f64::from(*x) / norm) as f32;
        }
    }
}

#[inline(always)]
fn fold(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Eight lanes of float64, in as many registers as they take: compilers make two of a time of it where
/// that is left to them. The methods are called only from a function that is compiled for these.
trait Wide: Copy {
    fn widen(x: &[f32; LANES]) -> Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn lanes(self) -> [f64; LANES];
}

impl Wide for [f64; LANES] {
    #[inline(always)]
    fn widen(x: &[f32; LANES]) -> Self {
        x.map(f64::from)
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] - other[lane])
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * other[lane])
    }

    #[inline(always)]
    fn lanes(self) -> [f64; LANES] {
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256d, __m512d, _mm_loadu_ps, _mm256_add_pd, _mm256_cvtps_pd, _mm256_loadu_ps, _mm256_mul_pd,
        _mm256_storeu_pd, _mm256_sub_pd, _mm512_add_pd, _mm512_cvtps_pd, _mm512_mul_pd, _mm512_storeu_pd,
        _mm512_sub_pd,
    };

    use super::{LANES, Wide};

    impl Wide for [__m256d; 2] {
        #[inline(always)]
        fn widen(x: &[f32; LANES]) -> Self {
            // SAFETY: two times four lanes are there; the caller is compiled for AVX2.
            unsafe {
                [
                    _mm256_cvtps_pd(_mm_loadu_ps(x.as_ptr())),
                    _mm256_cvtps_pd(_mm_loadu_ps(x.as_ptr().add(LANES / 2))),
                ]
            }
        }

        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX2.
            unsafe { [_mm256_add_pd(self[0], other[0]), _mm256_add_pd(self[1], other[1])] }
        }

        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX2.
            unsafe { [_mm256_sub_pd(self[0], other[0]), _mm256_sub_pd(self[1], other[1])] }
        }

        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX2.
            unsafe { [_mm256_mul_pd(self[0], other[0]), _mm256_mul_pd(self[1], other[1])] }
        }

        #[inline(always)]
        fn lanes(self) -> [f64; LANES] {
            let mut lanes = [0.0; LANES];
            // SAFETY: two times four lanes are there; the caller is compiled for AVX2.
            unsafe {
                _mm256_storeu_pd(lanes.as_mut_ptr(), self[0]);
                _mm256_storeu_pd(lanes.as_mut_ptr().add(LANES / 2), self[1]);
            }
            lanes
        }
    }

    impl Wide for __m512d {
        #[inline(always)]
        fn widen(x: &[f32; LANES]) -> Self {
            // SAFETY: eight lanes are there; the caller is compiled for AVX-512.
            unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(x.as_ptr())) }
        }

        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            unsafe { _mm512_add_pd(self, other) }
        }

        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            unsafe { _mm512_sub_pd(self, other) }
        }

        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            unsafe { _mm512_mul_pd(self, other) }
        }

        #[inline(always)]
        fn lanes(self) -> [f64; LANES] {
            let mut lanes = [0.0; LANES];
            // SAFETY: eight lanes are there; the caller is compiled for AVX-512.
            unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), self) }
            lanes
        }
    }
}
