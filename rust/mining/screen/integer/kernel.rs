//! The register tile: the products of R anchors and one panel of candidates, two vectors of candidates at a
//! time.

use super::super::COLUMNS;
use super::Bits;
use crate::simd::{Isa, Products, Token, X86_64, per_x86_64};

/// Bytes of a lane, whose products one instruction adds to one sum of 32 bits: four codes of 8 bits, or two
/// of 16.
pub const LANE: usize = 4;

/// The kernel of one instruction set.
#[derive(Clone, Copy)]
pub struct Kernel {
    token: X86_64,
    bits: Bits,
}

/// What an anchor's sums need before and after the multiplications.
#[derive(Clone, Copy, Default)]
pub struct AnchorTerms {
    /// What each sum starts from, so that the candidates' offset is taken out again.
    pub start: i32,
    /// The step of the anchor's codes.
    pub step: f32,
}

/// A panel of candidates.
#[derive(Clone, Copy)]
pub struct PanelCodes<'a> {
    /// The first lane of each candidate, then the second lane of each, and so on.
    pub codes: &'a [[u8; LANE * COLUMNS]],
    /// The step of each candidate's codes.
    pub steps: &'a [f32; COLUMNS],
    /// `n` of the screen's bound.
    pub squared_norms: &'a [f32; COLUMNS],
}

impl Kernel {
    /// `None` for the portable path.
    pub fn choose(isa: Isa, bits: Bits) -> Option<Self> {
        match isa.token() {
            Token::Portable(_) => None,
            Token::X86_64(token) => Some(Self { token, bits }),
        }
    }

    /// R, which fills the registers: two vectors of sums for each anchor, the vectors of the candidates, the
    /// broadcast anchors, and products that are not added yet.
    pub fn tile_anchors(self) -> usize {
        match self.token {
            X86_64::Avx2(_) => AVX2_ANCHORS,
            X86_64::Avx512(_) => AVX512_ANCHORS,
            X86_64::Avx512Vnni(_) => VNNI_ANCHORS,
        }
    }

    /// The largest code. Without VNNI, four products of 8-bit codes are added in 16 bits: 4 x 127 x 63 fit.
    pub fn levels(self) -> i16 {
        match (self.bits, self.token) {
            (Bits::Eight, X86_64::Avx2(_) | X86_64::Avx512(_)) => 63,
            (Bits::Eight, X86_64::Avx512Vnni(_)) => 127,
            (Bits::Sixteen, _) => i16::MAX,
        }
    }

    /// What is added to the candidates' codes of 8 bits, so that they are not negative.
    pub fn offset(self) -> u8 {
        match self.bits {
            Bits::Eight => self.levels() as u8 + 1,
            Bits::Sixteen => 0,
        }
    }

    /// Writes `v` of the screen's bound for R anchors, packed as the panel is, and one panel.
    pub fn estimate(
        self,
        anchors: &[[u8; LANE]],
        terms: &[AnchorTerms],
        panel: PanelCodes<'_>,
        estimates: &mut [[f32; COLUMNS]],
    ) {
        match self.bits {
            Bits::Eight => estimate_bytes(self.token, anchors, terms, panel, estimates),
            Bits::Sixteen => estimate_words(self.token, anchors, terms, panel, estimates),
        }
    }
}

const AVX2_ANCHORS: usize = 4;
const AVX512_ANCHORS: usize = 8;
const VNNI_ANCHORS: usize = 12;

per_x86_64! {
    fn estimate_bytes(
        anchors: &[[u8; LANE]],
        terms: &[AnchorTerms],
        panel: PanelCodes<'_>,
        estimates: &mut [[f32; COLUMNS]],
    ) {
        avx2 => tile::<_, Bytes, AVX2_ANCHORS>,
        avx512 => tile::<_, Bytes, AVX512_ANCHORS>,
        avx512vnni => tile::<_, Bytes, VNNI_ANCHORS>,
    }
}

per_x86_64! {
    fn estimate_words(
        anchors: &[[u8; LANE]],
        terms: &[AnchorTerms],
        panel: PanelCodes<'_>,
        estimates: &mut [[f32; COLUMNS]],
    ) {
        avx2 => tile::<_, Words, AVX2_ANCHORS>,
        avx512 => tile::<_, Words, AVX512_ANCHORS>,
        avx512vnni => tile::<_, Words, VNNI_ANCHORS>,
    }
}

#[inline(always)]
fn tile<S: Products, C: Code, const R: usize>(
    simd: S,
    anchors: &[[u8; LANE]],
    terms: &[AnchorTerms],
    panel: PanelCodes<'_>,
    estimates: &mut [[f32; COLUMNS]],
) {
    let terms: &[AnchorTerms; R] = terms.try_into().expect("R anchors");
    let estimates: &mut [[f32; COLUMNS]; R] = estimates.try_into().expect("estimates of R anchors");
    for first in (0..COLUMNS).step_by(2 * S::LANES) {
        let second = first + S::LANES;
        let mut sums: [[S::Vector; 2]; R] = std::array::from_fn(|r| [simd.splat(terms[r].start); 2]);
        // The columns are a multiple of 8, so the lanes of a row are a multiple of 2.
        let anchors = anchors.as_chunks::<R>().0.as_chunks::<2>().0;
        for ([x, x_next], [y, y_next]) in anchors.iter().zip(panel.codes.as_chunks::<2>().0) {
            let low = [simd.load(&y[first * LANE..]), simd.load(&y_next[first * LANE..])];
            let high = [simd.load(&y[second * LANE..]), simd.load(&y_next[second * LANE..])];
            for r in 0..R {
                let anchor =
                    [simd.splat(i32::from_ne_bytes(x[r])), simd.splat(i32::from_ne_bytes(x_next[r]))];
                sums[r][0] = C::add_products(simd, sums[r][0], low, anchor);
                sums[r][1] = C::add_products(simd, sums[r][1], high, anchor);
            }
        }
        for r in 0..R {
            finish(simd, sums[r][0], terms[r].step, panel, first, &mut estimates[r]);
            finish(simd, sums[r][1], terms[r].step, panel, second, &mut estimates[r]);
        }
    }
}

/// Writes `v` of an anchor and the candidates from column `first` on.
#[inline(always)]
fn finish<S: Products>(
    simd: S,
    sums: S::Vector,
    step: f32,
    panel: PanelCodes<'_>,
    first: usize,
    estimates: &mut [f32; COLUMNS],
) {
    let (norms, steps) = (&panel.squared_norms[first..], &panel.steps[first..]);
    simd.subtract_scaled(norms, sums, 2.0 * step, steps, &mut estimates[first..]);
}

/// How codes are multiplied.
trait Code {
    /// Adds the products of candidates' `y` and anchors' `x`, two lanes each.
    fn add_products<S: Products>(simd: S, sum: S::Vector, y: [S::Vector; 2], x: [S::Vector; 2]) -> S::Vector;
}

/// Unsigned and signed bytes.
struct Bytes;

/// Signed 16-bit words.
struct Words;

impl Code for Bytes {
    #[inline(always)]
    fn add_products<S: Products>(simd: S, sum: S::Vector, y: [S::Vector; 2], x: [S::Vector; 2]) -> S::Vector {
        simd.add_products_of_bytes(sum, y, x)
    }
}

impl Code for Words {
    #[inline(always)]
    fn add_products<S: Products>(simd: S, sum: S::Vector, y: [S::Vector; 2], x: [S::Vector; 2]) -> S::Vector {
        simd.add_products_of_words(sum, y, x)
    }
}
