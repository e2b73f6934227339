//! The register tile: R anchors times one panel of candidates, two vectors at a time.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_epi16, _mm512_add_epi32,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16,
    _mm512_maddubs_epi16, _mm512_mul_ps, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_storeu_ps, _mm512_sub_ps,
};

use super::super::COLUMNS;
use super::QUAD;
use crate::mining::isa::{Isa, Kind};

/// The kernel of one instruction set: a value cannot be made for one that the CPU lacks.
#[derive(Clone, Copy)]
pub struct Kernel(Isa);

/// What an anchor's sums need before and after the multiplications.
#[derive(Clone, Copy, Default)]
pub struct Row {
    /// What each sum starts from: it takes the candidates' offset out again.
    pub start: i32,
    /// s.
    pub step: f32,
}

/// A panel of candidates.
#[derive(Clone, Copy)]
pub struct Panel<'a> {
    /// In quads of dimensions, with the offset.
    pub codes: &'a [[u8; QUAD * COLUMNS]],
    /// s of each.
    pub steps: &'a [f32; COLUMNS],
    /// `n` of the screen's bound.
    pub squared_norms: &'a [f32; COLUMNS],
}

impl Kernel {
    /// `None` where only the portable instructions are there.
    pub fn choose(isa: Isa) -> Option<Self> {
        (isa.0 != Kind::Portable).then_some(Self(isa))
    }

    /// R, which fills the registers: two vectors of sums for each anchor, the candidates' vectors, the
    /// broadcast anchors, and what `maddubs` needs on the way.
    pub fn rows(self) -> usize {
        match self.0.0 {
            Kind::Portable | Kind::Avx2 => AVX2_ROWS,
            Kind::Avx512 => AVX512_ROWS,
            Kind::Avx512Vnni => VNNI_ROWS,
        }
    }

    /// The largest code. `maddubs` adds two products in 16 bits, and the kernel adds two of its sums:
    /// 4 x 127 x 63 still fit.
    pub fn levels(self) -> i8 {
        match self.0.0 {
            Kind::Portable | Kind::Avx2 | Kind::Avx512 => 63,
            Kind::Avx512Vnni => 127,
        }
    }

    /// Added to the candidates' codes, which then are not negative.
    pub fn offset(self) -> u8 {
        self.levels().cast_unsigned() + 1
    }

    /// `v` of the screen's bound for R anchors, in quads of dimensions, and one panel.
    pub fn estimate(
        self,
        anchors: &[[i8; QUAD]],
        rows: &[Row],
        panel: Panel<'_>,
        estimates: &mut [[f32; COLUMNS]],
    ) {
        match self.0.0 {
            Kind::Portable => unreachable!("there is no portable kernel"),
            // SAFETY: an `Isa` of this kind exists only where the CPU was seen to have it.
            Kind::Avx2 => unsafe { avx2(anchors, rows, panel, estimates) },
            // SAFETY: as above.
            Kind::Avx512 => unsafe { avx512(anchors, rows, panel, estimates) },
            // SAFETY: as above.
            Kind::Avx512Vnni => unsafe { vnni(anchors, rows, panel, estimates) },
        }
    }
}

const AVX2_ROWS: usize = 4;
const AVX512_ROWS: usize = 8;
const VNNI_ROWS: usize = 12;

macro_rules! compiled {
    ($name:ident, $features:literal, $vector:ty, $rows:ident) => {
        #[target_feature(enable = $features)]
        fn $name(anchors: &[[i8; QUAD]], rows: &[Row], panel: Panel<'_>, estimates: &mut [[f32; COLUMNS]]) {
            estimate_body::<$vector, $rows>(anchors, rows, panel, estimates);
        }
    };
}

compiled!(avx2, "avx2", Avx2, AVX2_ROWS);
compiled!(avx512, "avx512f,avx512bw", Avx512, AVX512_ROWS);
compiled!(vnni, "avx512f,avx512bw,avx512vnni", Vnni, VNNI_ROWS);

#[inline(always)]
fn estimate_body<V: Bytes, const R: usize>(
    anchors: &[[i8; QUAD]],
    rows: &[Row],
    panel: Panel<'_>,
    estimates: &mut [[f32; COLUMNS]],
) {
    let rows: &[Row; R] = rows.try_into().expect("R rows");
    let estimates: &mut [[f32; COLUMNS]; R] = estimates.try_into().expect("R rows of estimates");
    for first in (0..COLUMNS).step_by(2 * V::LANES) {
        let second = first + V::LANES;
        let mut tile: [[V; 2]; R] = std::array::from_fn(|r| [V::splat(rows[r].start); 2]);
        // A row is a multiple of 8 long: quads come in twos.
        let anchors = anchors.as_chunks::<R>().0.as_chunks::<2>().0;
        for ([x, x_next], [y, y_next]) in anchors.iter().zip(panel.codes.as_chunks::<2>().0) {
            let low = [V::load(&y[first * QUAD..]), V::load(&y_next[first * QUAD..])];
            let high = [V::load(&y[second * QUAD..]), V::load(&y_next[second * QUAD..])];
            for r in 0..R {
                let anchor = [
                    V::splat(i32::from_ne_bytes(x[r].map(i8::cast_unsigned))),
                    V::splat(i32::from_ne_bytes(x_next[r].map(i8::cast_unsigned))),
                ];
                tile[r][0] = tile[r][0].add_products(low, anchor);
                tile[r][1] = tile[r][1].add_products(high, anchor);
            }
        }
        for r in 0..R {
            tile[r][0].estimate(rows[r].step, panel, first, &mut estimates[r][first..]);
            tile[r][1].estimate(rows[r].step, panel, second, &mut estimates[r][second..]);
        }
    }
}

/// A vector register of bytes, or of 32-bit sums. Its methods are called only from a function that is
/// compiled for its instruction set.
trait Bytes: Copy {
    /// Of 32 bits.
    const LANES: usize;
    fn splat(x: i32) -> Self;
    fn load(from: &[u8]) -> Self;
    /// `n - 2 s`, of sums with the panel's columns from `first` on.
    fn estimate(self, step: f32, panel: Panel<'_>, first: usize, to: &mut [f32]);
    /// Adds the products of two quads a lane, of unsigned and signed bytes.
    fn add_products(self, unsigned: [Self; 2], signed: [Self; 2]) -> Self;
}

macro_rules! vector {
    ($vector:ident, $inner:ty, $lanes:literal, $splat:ident, $load:ident, $splat_float:ident, $load_floats:ident,
     $store_floats:ident, $to_floats:ident, $multiply:ident, $subtract:ident, |$sum:ident, $unsigned:ident, $signed:ident| $add_products:expr) => {
        #[derive(Clone, Copy)]
        struct $vector($inner);

        impl Bytes for $vector {
            const LANES: usize = $lanes;

            #[inline(always)]
            fn splat(x: i32) -> Self {
                // SAFETY: the caller is compiled for this vector.
                Self(unsafe { $splat(x) })
            }

            #[inline(always)]
            fn load(from: &[u8]) -> Self {
                let from = &from[..4 * $lanes];
                // SAFETY: the slice holds all lanes; the caller is compiled for this vector.
                Self(unsafe { $load(from.as_ptr().cast()) })
            }

            #[inline(always)]
            fn estimate(self, step: f32, panel: Panel<'_>, first: usize, to: &mut [f32]) {
                let (steps, squared_norms) = (&panel.steps[first..], &panel.squared_norms[first..]);
                let (steps, squared_norms, to) =
                    (&steps[..$lanes], &squared_norms[..$lanes], &mut to[..$lanes]);
                // SAFETY: the slices hold all lanes; the caller is compiled for this vector.
                unsafe {
                    let factor = $multiply($splat_float(2.0 * step), $load_floats(steps.as_ptr()));
                    let doubled = $multiply($to_floats(self.0), factor);
                    let squared_norms = $load_floats(squared_norms.as_ptr());
                    $store_floats(to.as_mut_ptr(), $subtract(squared_norms, doubled));
                }
            }

            #[inline(always)]
            fn add_products(self, $unsigned: [Self; 2], $signed: [Self; 2]) -> Self {
                let $sum = self.0;
                // SAFETY: the caller is compiled for this vector.
                Self(unsafe { $add_products })
            }
        }
    };
}

vector!(
    Avx2,
    __m256i,
    8,
    _mm256_set1_epi32,
    _mm256_loadu_si256,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_cvtepi32_ps,
    _mm256_mul_ps,
    _mm256_sub_ps,
    |sum, unsigned, signed| {
        let first = _mm256_maddubs_epi16(unsigned[0].0, signed[0].0);
        let second = _mm256_maddubs_epi16(unsigned[1].0, signed[1].0);
        _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(1)))
    }
);
vector!(
    Avx512,
    __m512i,
    16,
    _mm512_set1_epi32,
    _mm512_loadu_si512,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_cvtepi32_ps,
    _mm512_mul_ps,
    _mm512_sub_ps,
    |sum, unsigned, signed| {
        let first = _mm512_maddubs_epi16(unsigned[0].0, signed[0].0);
        let second = _mm512_maddubs_epi16(unsigned[1].0, signed[1].0);
        _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_add_epi16(first, second), _mm512_set1_epi16(1)))
    }
);
vector!(
    Vnni,
    __m512i,
    16,
    _mm512_set1_epi32,
    _mm512_loadu_si512,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_cvtepi32_ps,
    _mm512_mul_ps,
    _mm512_sub_ps,
    |sum, unsigned, signed| {
        _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, unsigned[0].0, signed[0].0), unsigned[1].0, signed[1].0)
    }
);
