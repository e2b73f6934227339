//! Registers of 256 bits, with and without VNNI.

use std::arch::x86_64::{
    __m256d, __m256i, _CMP_LT_OQ, _mm_loadu_ps, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_pd,
    _mm256_add_ps, _mm256_and_ps, _mm256_cmp_ps, _mm256_cmpgt_epi16, _mm256_cvtepi32_ps, _mm256_cvtps_pd,
    _mm256_dpbusd_avx_epi32, _mm256_dpwssd_avx_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_movemask_epi8, _mm256_movemask_ps, _mm256_mul_pd, _mm256_mul_ps,
    _mm256_mullo_epi16, _mm256_packs_epi16, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_si256, _mm256_storeu_pd, _mm256_storeu_ps, _mm256_sub_pd, _mm256_sub_ps, _mm256_xor_si256,
};

use super::Products;
use crate::simd::Simd;

/// Proof of AVX2 and FMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

/// Proof of all that [`Avx2`] proves, and of VNNI in the form that CPUs without AVX-512 have, AVX-VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvxVnni(Avx2);

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

impl AvxVnni {
    pub(super) fn detect() -> Option<Self> {
        let avx2 = Avx2::detect()?;
        is_x86_feature_detected!("avxvnni").then_some(Self(avx2))
    }

    #[inline(always)]
    pub(crate) const fn without_vnni(self) -> Avx2 {
        self.0
    }
}

impl Simd for Avx2 {
    type F64x8 = [__m256d; 2];

    #[inline(always)]
    fn widen(self, from: &[f32; 8]) -> [__m256d; 2] {
        let (low, high) = (from[..4].as_ptr(), from[4..].as_ptr());
        // SAFETY: `self` is proof of AVX2; four numbers are at each pointer.
        unsafe { [_mm256_cvtps_pd(_mm_loadu_ps(low)), _mm256_cvtps_pd(_mm_loadu_ps(high))] }
    }

    #[inline(always)]
    fn add(self, a: [__m256d; 2], b: [__m256d; 2]) -> [__m256d; 2] {
        // SAFETY: `self` is proof of AVX2.
        unsafe { [_mm256_add_pd(a[0], b[0]), _mm256_add_pd(a[1], b[1])] }
    }

    #[inline(always)]
    fn subtract(self, a: [__m256d; 2], b: [__m256d; 2]) -> [__m256d; 2] {
        // SAFETY: `self` is proof of AVX2.
        unsafe { [_mm256_sub_pd(a[0], b[0]), _mm256_sub_pd(a[1], b[1])] }
    }

    #[inline(always)]
    fn multiply(self, a: [__m256d; 2], b: [__m256d; 2]) -> [__m256d; 2] {
        // SAFETY: `self` is proof of AVX2.
        unsafe { [_mm256_mul_pd(a[0], b[0]), _mm256_mul_pd(a[1], b[1])] }
    }

    #[inline(always)]
    fn to_array(self, x: [__m256d; 2]) -> [f64; 8] {
        let mut lanes = [0.0; 8];
        let (low, high) = lanes.split_at_mut(4);
        // SAFETY: `self` is proof of AVX2; each half has room for four numbers.
        unsafe {
            _mm256_storeu_pd(low.as_mut_ptr(), x[0]);
            _mm256_storeu_pd(high.as_mut_ptr(), x[1]);
        }
        lanes
    }

    type U16s = __m256i;
    const U16_LANES: usize = 16;

    #[inline(always)]
    fn splat_u16(self, x: u16) -> __m256i {
        // SAFETY: `self` is proof of AVX2.
        unsafe { _mm256_set1_epi16(x.cast_signed()) }
    }

    #[inline(always)]
    fn load_u16(self, from: &[u16]) -> __m256i {
        let from = &from[..Self::U16_LANES];
        // SAFETY: `self` is proof of AVX2; the slice holds all lanes.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn xor_u16(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` is proof of AVX2.
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    fn multiply_u16(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` is proof of AVX2.
        unsafe { _mm256_mullo_epi16(a, b) }
    }

    #[inline(always)]
    fn below_u16(self, x: __m256i, limit: __m256i) -> u32 {
        // AVX2 compares signed numbers only, and packs each half of a register by itself.
        // SAFETY: `self` is proof of AVX2.
        let bytes = unsafe {
            let lowest = _mm256_set1_epi16(i16::MIN);
            let below = _mm256_cmpgt_epi16(_mm256_xor_si256(limit, lowest), _mm256_xor_si256(x, lowest));
            _mm256_movemask_epi8(_mm256_packs_epi16(below, _mm256_setzero_si256()))
        };
        (bytes & 0xFF | bytes >> 8 & 0xFF00).cast_unsigned()
    }

    const F32_LANES: usize = 8;

    #[inline(always)]
    fn between_f32(self, from: &[f32], low: f32, high: f32) -> u32 {
        let from = &from[..Self::F32_LANES];
        // SAFETY: `self` is proof of AVX2; the slice holds all lanes.
        unsafe {
            let x = _mm256_loadu_ps(from.as_ptr());
            let above = _mm256_cmp_ps::<_CMP_LT_OQ>(_mm256_set1_ps(low), x);
            let below = _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(high));
            _mm256_movemask_ps(_mm256_and_ps(above, below)).cast_unsigned()
        }
    }

    #[inline(always)]
    fn sums_between_f32(self, from: &[f32], more: f32, low: &[f32], high: &[f32]) -> u32 {
        let [from, low, high] = [from, low, high].map(|x| &x[..Self::F32_LANES]);
        // SAFETY: `self` is proof of AVX2; the slices hold all lanes.
        unsafe {
            let x = _mm256_add_ps(_mm256_loadu_ps(from.as_ptr()), _mm256_set1_ps(more));
            let above = _mm256_cmp_ps::<_CMP_LT_OQ>(_mm256_loadu_ps(low.as_ptr()), x);
            let below = _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_loadu_ps(high.as_ptr()));
            _mm256_movemask_ps(_mm256_and_ps(above, below)).cast_unsigned()
        }
    }
}

impl Products for Avx2 {
    type Vector = __m256i;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: i32) -> __m256i {
        // SAFETY: `self` is proof of AVX2.
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    fn load(self, from: &[u8]) -> __m256i {
        let from = &from[..4 * Self::LANES];
        // SAFETY: `self` is proof of AVX2; the slice holds all lanes.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn add_products_of_bytes(self, sum: __m256i, y: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: `self` is proof of AVX2.
        unsafe {
            let twos = _mm256_add_epi16(_mm256_maddubs_epi16(y[0], x[0]), _mm256_maddubs_epi16(y[1], x[1]));
            _mm256_add_epi32(sum, _mm256_madd_epi16(twos, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn add_products_of_words(self, sum: __m256i, y: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: `self` is proof of AVX2.
        unsafe {
            let twos = _mm256_add_epi32(_mm256_madd_epi16(y[0], x[0]), _mm256_madd_epi16(y[1], x[1]));
            _mm256_add_epi32(sum, twos)
        }
    }

    #[inline(always)]
    fn subtract_scaled(self, from: &[f32], sums: __m256i, factor: f32, factors: &[f32], to: &mut [f32]) {
        let (from, factors) = (&from[..Self::LANES], &factors[..Self::LANES]);
        let to = &mut to[..Self::LANES];
        // SAFETY: `self` is proof of AVX2; the slices hold all lanes.
        unsafe {
            let factors = _mm256_mul_ps(_mm256_set1_ps(factor), _mm256_loadu_ps(factors.as_ptr()));
            let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), factors);
            _mm256_storeu_ps(to.as_mut_ptr(), _mm256_sub_ps(_mm256_loadu_ps(from.as_ptr()), scaled));
        }
    }
}

/// As [`Avx512Vnni`](super::Avx512Vnni) beside AVX-512: one instruction for three.
impl Products for AvxVnni {
    type Vector = __m256i;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: i32) -> __m256i {
        self.0.splat(x)
    }

    #[inline(always)]
    fn load(self, from: &[u8]) -> __m256i {
        self.0.load(from)
    }

    #[inline(always)]
    fn add_products_of_bytes(self, sum: __m256i, y: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: `self` is proof of AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sum, y[0], x[0]), y[1], x[1]) }
    }

    #[inline(always)]
    fn add_products_of_words(self, sum: __m256i, y: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: `self` is proof of AVX-VNNI.
        unsafe { _mm256_dpwssd_avx_epi32(_mm256_dpwssd_avx_epi32(sum, y[0], x[0]), y[1], x[1]) }
    }

    #[inline(always)]
    fn subtract_scaled(self, from: &[f32], sums: __m256i, factor: f32, factors: &[f32], to: &mut [f32]) {
        self.0.subtract_scaled(from, sums, factor, factors, to);
    }
}
