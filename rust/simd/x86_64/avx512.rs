//! Registers of 512 bits, with and without VNNI.

use std::arch::x86_64::{
    __m512d, __m512i, _CMP_LT_OQ, _mm256_loadu_ps, _mm512_add_epi16, _mm512_add_epi32, _mm512_add_pd,
    _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cmplt_epu16_mask, _mm512_cvtepi32_ps, _mm512_cvtps_pd,
    _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16,
    _mm512_maddubs_epi16, _mm512_mask_cmp_ps_mask, _mm512_mul_pd, _mm512_mul_ps, _mm512_mullo_epi16,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_storeu_pd, _mm512_storeu_ps, _mm512_sub_pd,
    _mm512_sub_ps, _mm512_xor_si512,
};

use super::{Avx2, Products};
use crate::simd::Simd;

/// Proof of AVX2, FMA and AVX-512 F, BW, DQ and VL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512(());

/// Proof of all that [`Avx512`] proves, and VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512Vnni(Avx512);

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        Avx2::detect()?;
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        all.then_some(Self(()))
    }
}

impl Avx512Vnni {
    pub(super) fn detect() -> Option<Self> {
        let avx512 = Avx512::detect()?;
        is_x86_feature_detected!("avx512vnni").then_some(Self(avx512))
    }

    #[inline(always)]
    pub(crate) const fn without_vnni(self) -> Avx512 {
        self.0
    }
}

impl Simd for Avx512 {
    type F64x8 = __m512d;

    #[inline(always)]
    fn widen(self, from: &[f32; 8]) -> __m512d {
        // SAFETY: `self` is proof of AVX-512; eight numbers are at the pointer.
        unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(from.as_ptr())) }
    }

    #[inline(always)]
    fn add(self, a: __m512d, b: __m512d) -> __m512d {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_add_pd(a, b) }
    }

    #[inline(always)]
    fn subtract(self, a: __m512d, b: __m512d) -> __m512d {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_sub_pd(a, b) }
    }

    #[inline(always)]
    fn multiply(self, a: __m512d, b: __m512d) -> __m512d {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_mul_pd(a, b) }
    }

    #[inline(always)]
    fn to_array(self, x: __m512d) -> [f64; 8] {
        let mut lanes = [0.0; 8];
        // SAFETY: `self` is proof of AVX-512; the array has room for eight numbers.
        unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), x) }
        lanes
    }

    type U16s = __m512i;
    const U16_LANES: usize = 32;

    #[inline(always)]
    fn splat_u16(self, x: u16) -> __m512i {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_set1_epi16(x.cast_signed()) }
    }

    #[inline(always)]
    fn load_u16(self, from: &[u16]) -> __m512i {
        let from = &from[..Self::U16_LANES];
        // SAFETY: `self` is proof of AVX-512; the slice holds all lanes.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn xor_u16(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn multiply_u16(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` is proof of AVX-512 BW.
        unsafe { _mm512_mullo_epi16(a, b) }
    }

    #[inline(always)]
    fn below_u16(self, x: __m512i, limit: __m512i) -> u32 {
        // SAFETY: `self` is proof of AVX-512 BW.
        unsafe { _mm512_cmplt_epu16_mask(x, limit) }
    }

    const F32_LANES: usize = 16;

    #[inline(always)]
    fn between_f32(self, from: &[f32], low: f32, high: f32) -> u32 {
        let from = &from[..Self::F32_LANES];
        // SAFETY: `self` is proof of AVX-512; the slice holds all lanes.
        unsafe {
            let x = _mm512_loadu_ps(from.as_ptr());
            let above = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_set1_ps(low), x);
            u32::from(_mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(above, x, _mm512_set1_ps(high)))
        }
    }

    #[inline(always)]
    fn sums_between_f32(self, from: &[f32], more: f32, low: &[f32], high: &[f32]) -> u32 {
        let [from, low, high] = [from, low, high].map(|x| &x[..Self::F32_LANES]);
        // SAFETY: `self` is proof of AVX-512; the slices hold all lanes.
        unsafe {
            let x = _mm512_add_ps(_mm512_loadu_ps(from.as_ptr()), _mm512_set1_ps(more));
            let above = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_loadu_ps(low.as_ptr()), x);
            let high = _mm512_loadu_ps(high.as_ptr());
            u32::from(_mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(above, x, high))
        }
    }
}

impl Products for Avx512 {
    type Vector = __m512i;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, x: i32) -> __m512i {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn load(self, from: &[u8]) -> __m512i {
        let from = &from[..4 * Self::LANES];
        // SAFETY: `self` is proof of AVX-512; the slice holds all lanes.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn add_products_of_bytes(self, sum: __m512i, y: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: `self` is proof of AVX-512 BW.
        unsafe {
            let twos = _mm512_add_epi16(_mm512_maddubs_epi16(y[0], x[0]), _mm512_maddubs_epi16(y[1], x[1]));
            _mm512_add_epi32(sum, _mm512_madd_epi16(twos, _mm512_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn add_products_of_words(self, sum: __m512i, y: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: `self` is proof of AVX-512 BW.
        unsafe {
            let twos = _mm512_add_epi32(_mm512_madd_epi16(y[0], x[0]), _mm512_madd_epi16(y[1], x[1]));
            _mm512_add_epi32(sum, twos)
        }
    }

    #[inline(always)]
    fn subtract_scaled(self, from: &[f32], sums: __m512i, factor: f32, factors: &[f32], to: &mut [f32]) {
        let (from, factors) = (&from[..Self::LANES], &factors[..Self::LANES]);
        let to = &mut to[..Self::LANES];
        // SAFETY: `self` is proof of AVX-512; the slices hold all lanes.
        unsafe {
            let factors = _mm512_mul_ps(_mm512_set1_ps(factor), _mm512_loadu_ps(factors.as_ptr()));
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), factors);
            _mm512_storeu_ps(to.as_mut_ptr(), _mm512_sub_ps(_mm512_loadu_ps(from.as_ptr()), scaled));
        }
    }
}

/// One instruction of VNNI does the work of `maddubs`, `madd` and the addition. All else is AVX-512's.
impl Products for Avx512Vnni {
    type Vector = __m512i;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, x: i32) -> __m512i {
        self.0.splat(x)
    }

    #[inline(always)]
    fn load(self, from: &[u8]) -> __m512i {
        self.0.load(from)
    }

    #[inline(always)]
    fn add_products_of_bytes(self, sum: __m512i, y: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: `self` is proof of VNNI.
        unsafe { _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, y[0], x[0]), y[1], x[1]) }
    }

    #[inline(always)]
    fn add_products_of_words(self, sum: __m512i, y: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: `self` is proof of VNNI.
        unsafe { _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum, y[0], x[0]), y[1], x[1]) }
    }

    #[inline(always)]
    fn subtract_scaled(self, from: &[f32], sums: __m512i, factor: f32, factors: &[f32], to: &mut [f32]) {
        self.0.subtract_scaled(from, sums, factor, factors, to);
    }
}
