//! The register tile: R anchors times one panel of candidates, two vectors at a time.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_epi16, _mm512_add_epi32,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_madd_epi16, _mm512_maddubs_epi16, _mm512_mul_ps, _mm512_set1_epi16, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::super::COLUMNS;
use super::Bits;
use crate::isa::{Isa, Kind};

/// Bytes that one instruction multiplies and adds into one sum of 32 bits: four codes of 8 bits, or two
/// of 16.
pub const LANE: usize = 4;

/// The kernel of one instruction set: a value cannot be made for one that the CPU lacks.
#[derive(Clone, Copy)]
pub struct Kernel {
    isa: Isa,
    bits: Bits,
}

/// What an anchor's sums need before and after the multiplications.
#[derive(Clone, Copy, Default)]
pub struct AnchorTerms {
    /// What each sum starts from: it takes the candidates' offset out again.
    pub start: i32,
    /// s.
    pub step: f32,
}

/// A panel of candidates.
#[derive(Clone, Copy)]
pub struct PanelCodes<'a> {
    /// A lane of each candidate, then the next lane of each.
    pub codes: &'a [[u8; LANE * COLUMNS]],
    /// s of each.
    pub steps: &'a [f32; COLUMNS],
    /// `n` of the screen's bound.
    pub squared_norms: &'a [f32; COLUMNS],
}

impl Kernel {
    /// `None` where only the portable instructions are there.
    pub fn choose(isa: Isa, bits: Bits) -> Option<Self> {
        (isa.kind() != Kind::Portable).then_some(Self { isa, bits })
    }

    /// R, which fills the registers: two vectors of sums for each anchor, the candidates' vectors, the
    /// broadcast anchors, and the products on their way into the sums.
    pub fn rows(self) -> usize {
        match self.isa.kind() {
            Kind::Portable | Kind::Avx2 => AVX2_ROWS,
            Kind::Avx512 => AVX512_ROWS,
            Kind::Avx512Vnni => VNNI_ROWS,
        }
    }

    /// The largest code of 8 bits. `maddubs` adds two products in 16 bits, and the kernel adds two of its
    /// sums: 4 x 127 x 63 still fit.
    pub fn levels(self) -> i16 {
        match (self.bits, self.isa.kind()) {
            (Bits::Eight, Kind::Portable | Kind::Avx2 | Kind::Avx512) => 63,
            (Bits::Eight, Kind::Avx512Vnni) => 127,
            (Bits::Sixteen, _) => i16::MAX,
        }
    }

    /// Added to the candidates' codes of 8 bits, which are multiplied unsigned.
    pub fn offset(self) -> u8 {
        match self.bits {
            Bits::Eight => self.levels() as u8 + 1,
            Bits::Sixteen => 0,
        }
    }

    /// `v` of the screen's bound for R anchors, lane after lane of all, and one panel.
    pub fn estimate(
        self,
        anchors: &[[u8; LANE]],
        rows: &[AnchorTerms],
        panel: PanelCodes<'_>,
        estimates: &mut [[f32; COLUMNS]],
    ) {
        let kernel = match (self.bits, self.isa.kind()) {
            (_, Kind::Portable) => unreachable!("there is no portable kernel"),
            (Bits::Eight, Kind::Avx2) => bytes_avx2,
            (Bits::Eight, Kind::Avx512) => bytes_avx512,
            (Bits::Eight, Kind::Avx512Vnni) => bytes_vnni,
            (Bits::Sixteen, Kind::Avx2) => words_avx2,
            (Bits::Sixteen, Kind::Avx512) => words_avx512,
            (Bits::Sixteen, Kind::Avx512Vnni) => words_vnni,
        };
        // SAFETY: an `Isa` of a kind exists only where the CPU was seen to have it.
        unsafe { kernel(anchors, rows, panel, estimates) }
    }
}

const AVX2_ROWS: usize = 4;
const AVX512_ROWS: usize = 8;
const VNNI_ROWS: usize = 12;

macro_rules! compiled {
    ($($name:ident, $features:literal, $vector:ty, $multiply:ty, $rows:ident;)*) => {$(
        #[target_feature(enable = $features)]
        fn $name(anchors: &[[u8; LANE]], rows: &[AnchorTerms], panel: PanelCodes<'_>, estimates: &mut [[f32; COLUMNS]]) {
            estimate_body::<$vector, $multiply, $rows>(anchors, rows, panel, estimates);
        }
    )*};
}

compiled! {
    bytes_avx2, "avx2", __m256i, Bytes, AVX2_ROWS;
    bytes_avx512, "avx512f,avx512bw", __m512i, Bytes, AVX512_ROWS;
    bytes_vnni, "avx512f,avx512bw,avx512vnni", __m512i, BytesVnni, VNNI_ROWS;
    words_avx2, "avx2", __m256i, Words, AVX2_ROWS;
    words_avx512, "avx512f,avx512bw", __m512i, Words, AVX512_ROWS;
    words_vnni, "avx512f,avx512bw,avx512vnni", __m512i, WordsVnni, VNNI_ROWS;
}

#[inline(always)]
fn estimate_body<V: Vector, M: Multiply<V>, const R: usize>(
    anchors: &[[u8; LANE]],
    rows: &[AnchorTerms],
    panel: PanelCodes<'_>,
    estimates: &mut [[f32; COLUMNS]],
) {
    let rows: &[AnchorTerms; R] = rows.try_into().expect("R rows");
    let estimates: &mut [[f32; COLUMNS]; R] = estimates.try_into().expect("R rows of estimates");
    for first in (0..COLUMNS).step_by(2 * V::LANES) {
        let second = first + V::LANES;
        let mut tile: [[V; 2]; R] = std::array::from_fn(|r| [V::splat(rows[r].start); 2]);
        // A row is a multiple of 8 long: lanes come in twos.
        let anchors = anchors.as_chunks::<R>().0.as_chunks::<2>().0;
        for ([x, x_next], [y, y_next]) in anchors.iter().zip(panel.codes.as_chunks::<2>().0) {
            let low = [V::load(&y[first * LANE..]), V::load(&y_next[first * LANE..])];
            let high = [V::load(&y[second * LANE..]), V::load(&y_next[second * LANE..])];
            for r in 0..R {
                let anchor = [V::splat(i32::from_ne_bytes(x[r])), V::splat(i32::from_ne_bytes(x_next[r]))];
                tile[r][0] = M::add_products(tile[r][0], low, anchor);
                tile[r][1] = M::add_products(tile[r][1], high, anchor);
            }
        }
        for r in 0..R {
            tile[r][0].estimate(rows[r].step, panel, first, &mut estimates[r][first..]);
            tile[r][1].estimate(rows[r].step, panel, second, &mut estimates[r][second..]);
        }
    }
}

/// A vector register of codes, or of 32-bit sums. Its methods are called only from a function that is
/// compiled for its instruction set.
trait Vector: Copy {
    /// Of 32 bits.
    const LANES: usize;
    fn splat(x: i32) -> Self;
    fn load(from: &[u8]) -> Self;
    /// `n - 2 s`, of sums with the panel's columns from `first` on.
    fn estimate(self, step: f32, panel: PanelCodes<'_>, first: usize, to: &mut [f32]);
}

macro_rules! vector {
    ($vector:ty, $lanes:literal, $splat:ident, $load:ident, $splat_float:ident, $load_floats:ident,
     $store_floats:ident, $to_floats:ident, $multiply:ident, $subtract:ident) => {
        impl Vector for $vector {
            const LANES: usize = $lanes;

            #[inline(always)]
            fn splat(x: i32) -> Self {
                // SAFETY: the caller is compiled for this vector.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            fn load(from: &[u8]) -> Self {
                let from = &from[..LANE * $lanes];
                // SAFETY: the slice holds all lanes; the caller is compiled for this vector.
                unsafe { $load(from.as_ptr().cast()) }
            }

            #[inline(always)]
            fn estimate(self, step: f32, panel: PanelCodes<'_>, first: usize, to: &mut [f32]) {
                let (steps, squared_norms) = (&panel.steps[first..], &panel.squared_norms[first..]);
                let (steps, squared_norms, to) =
                    (&steps[..$lanes], &squared_norms[..$lanes], &mut to[..$lanes]);
                // SAFETY: the slices hold all lanes; the caller is compiled for this vector.
                unsafe {
                    let factor = $multiply($splat_float(2.0 * step), $load_floats(steps.as_ptr()));
                    let doubled = $multiply($to_floats(self), factor);
                    let squared_norms = $load_floats(squared_norms.as_ptr());
                    $store_floats(to.as_mut_ptr(), $subtract(squared_norms, doubled));
                }
            }
        }
    };
}

vector!(
    __m256i,
    8,
    _mm256_set1_epi32,
    _mm256_loadu_si256,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_cvtepi32_ps,
    _mm256_mul_ps,
    _mm256_sub_ps
);
vector!(
    __m512i,
    16,
    _mm512_set1_epi32,
    _mm512_loadu_si512,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_cvtepi32_ps,
    _mm512_mul_ps,
    _mm512_sub_ps
);

/// How codes are multiplied: candidates' `y` and anchors' `x`, two lanes each.
trait Multiply<V> {
    /// Adds the products. Called only from a function that is compiled for the instructions.
    fn add_products(sum: V, y: [V; 2], x: [V; 2]) -> V;
}

/// Unsigned and signed bytes.
struct Bytes;

/// The same with VNNI, whose one instruction does the work of `maddubs`, `madd` and the addition.
struct BytesVnni;

/// Signed 16-bit words.
struct Words;

/// The same with VNNI.
struct WordsVnni;

impl Multiply<__m256i> for Bytes {
    #[inline(always)]
    fn add_products(sum: __m256i, y: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: the caller is compiled for AVX2.
        unsafe {
            let twos = _mm256_add_epi16(_mm256_maddubs_epi16(y[0], x[0]), _mm256_maddubs_epi16(y[1], x[1]));
            _mm256_add_epi32(sum, _mm256_madd_epi16(twos, _mm256_set1_epi16(1)))
        }
    }
}

impl Multiply<__m512i> for Bytes {
    #[inline(always)]
    fn add_products(sum: __m512i, y: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: the caller is compiled for AVX-512 BW.
        unsafe {
            let twos = _mm512_add_epi16(_mm512_maddubs_epi16(y[0], x[0]), _mm512_maddubs_epi16(y[1], x[1]));
            _mm512_add_epi32(sum, _mm512_madd_epi16(twos, _mm512_set1_epi16(1)))
        }
    }
}

impl Multiply<__m512i> for BytesVnni {
    #[inline(always)]
    fn add_products(sum: __m512i, y: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: the caller is compiled for AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, y[0], x[0]), y[1], x[1]) }
    }
}

impl Multiply<__m256i> for Words {
    #[inline(always)]
    fn add_products(sum: __m256i, y: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: the caller is compiled for AVX2.
        unsafe {
            let twos = _mm256_add_epi32(_mm256_madd_epi16(y[0], x[0]), _mm256_madd_epi16(y[1], x[1]));
            _mm256_add_epi32(sum, twos)
        }
    }
}

impl Multiply<__m512i> for Words {
    #[inline(always)]
    fn add_products(sum: __m512i, y: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: the caller is compiled for AVX-512 BW.
        unsafe {
            let twos = _mm512_add_epi32(_mm512_madd_epi16(y[0], x[0]), _mm512_madd_epi16(y[1], x[1]));
            _mm512_add_epi32(sum, twos)
        }
    }
}

impl Multiply<__m512i> for WordsVnni {
    #[inline(always)]
    fn add_products(sum: __m512i, y: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // SAFETY: the caller is compiled for AVX-512 VNNI.
        unsafe { _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum, y[0], x[0]), y[1], x[1]) }
    }
}
