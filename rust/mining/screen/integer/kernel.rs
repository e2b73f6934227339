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
    /// broadcast anchors, and without VNNI products that are not added yet. A block is a multiple of it.
    pub fn tile_anchors(self) -> usize {
        match self.token {
            X86_64::Avx2(_) => AVX2_ANCHORS,
            X86_64::AvxVnni(_) => AVXVNNI_ANCHORS,
            X86_64::Avx512(_) => AVX512_ANCHORS,
            X86_64::Avx512Vnni(_) => AVX512VNNI_ANCHORS,
        }
    }

    /// The largest code. Without VNNI, four products of 8-bit codes are added in 16 bits: 4 x 127 x 63 fit.
    pub fn levels(self) -> i16 {
        match (self.bits, self.token) {
            (Bits::Eight, X86_64::Avx2(_) | X86_64::Avx512(_)) => 63,
            (Bits::Eight, X86_64::AvxVnni(_) | X86_64::Avx512Vnni(_)) => 127,
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
const AVXVNNI_ANCHORS: usize = 6;
const AVX512_ANCHORS: usize = 8;
const AVX512VNNI_ANCHORS: usize = 12;

per_x86_64! {
    fn estimate_bytes(
        anchors: &[[u8; LANE]],
        terms: &[AnchorTerms],
        panel: PanelCodes<'_>,
        estimates: &mut [[f32; COLUMNS]],
    ) {
        avx2 => tile::<_, Bytes, AVX2_ANCHORS>,
        avxvnni => tile::<_, Bytes, AVXVNNI_ANCHORS>,
        avx512 => tile::<_, Bytes, AVX512_ANCHORS>,
        avx512vnni => tile::<_, Bytes, AVX512VNNI_ANCHORS>,
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
        avxvnni => tile::<_, Words, AVXVNNI_ANCHORS>,
        avx512 => tile::<_, Words, AVX512_ANCHORS>,
        avx512vnni => tile::<_, Words, AVX512VNNI_ANCHORS>,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simd::Emulated;

    /// Rows of codes, and what else an estimate is made of.
    #[derive(Debug)]
    struct Rows {
        bits: Bits,
        levels: i16,
        anchors: Vec<Vec<i16>>,
        candidates: Vec<Vec<i16>>,
    }

    /// Rows of random codes, or of nothing but the largest and the smallest.
    fn rows(anchors: usize, bits: Bits, levels: i16) -> impl Strategy<Value = Rows> {
        // The sums of 16 bits must fit 32, as those of coded rows do.
        let levels = if bits == Bits::Sixteen { levels.min(4000) } else { levels };
        let code = move |extreme| {
            if extreme {
                prop_oneof![Just(-levels), Just(levels)].boxed()
            } else {
                (-levels..=levels).boxed()
            }
        };
        (1_usize..5, any::<[bool; 2]>()).prop_flat_map(move |(eights, [of_anchors, of_candidates])| {
            let of = |count, extreme| {
                prop::collection::vec(prop::collection::vec(code(extreme), 8 * eights), count)
            };
            (of(anchors, of_anchors), of(COLUMNS, of_candidates))
                .prop_map(move |(anchors, candidates)| Rows { bits, levels, anchors, candidates })
        })
    }

    impl Rows {
        /// Asserts that a kernel computes the products of the rows, which it gets as `Integer` packs them.
        fn assert_estimated(
            &self,
            estimate: impl FnOnce(&[[u8; LANE]], &[AnchorTerms], PanelCodes<'_>, &mut [[f32; COLUMNS]]),
        ) {
            let bytes = |row: &[i16], offset: u8| -> Vec<u8> {
                match self.bits {
                    Bits::Eight => row.iter().map(|&code| (code as u8).wrapping_add(offset)).collect(),
                    Bits::Sixteen => row.iter().flat_map(|code| code.to_ne_bytes()).collect(),
                }
            };
            let offset = if self.bits == Bits::Eight { self.levels as u8 + 1 } else { 0 };
            let packed = |rows: &[Vec<i16>], offset| -> Vec<[u8; LANE]> {
                let rows: Vec<_> = rows.iter().map(|row| bytes(row, offset)).collect();
                let lanes = 0..rows[0].len() / LANE;
                lanes.flat_map(|lane| rows.iter().map(move |row| row.as_chunks().0[lane])).collect()
            };
            let terms: Vec<_> = self
                .anchors
                .iter()
                .zip(1_u8..)
                .map(|(row, i)| {
                    let sum: i32 = row.iter().map(|&code| i32::from(code)).sum();
                    AnchorTerms { start: -i32::from(offset) * sum, step: 0.1 / f32::from(i) }
                })
                .collect();
            let numbers = |of: fn(f32) -> f32| std::array::from_fn(|column| of(column as f32));
            let (steps, squared_norms) = (numbers(|column| 0.3 + column), numbers(|column| 1e5 * column));
            let codes = packed(&self.candidates, offset);
            let panel = PanelCodes {
                codes: bytemuck::cast_slice(&codes),
                steps: &steps,
                squared_norms: &squared_norms,
            };
            let mut estimates = vec![[0.0; COLUMNS]; self.anchors.len()];
            estimate(&packed(&self.anchors, 0), &terms, panel, &mut estimates);
            for (i, x) in self.anchors.iter().enumerate() {
                for (column, y) in self.candidates.iter().enumerate() {
                    let sum: i32 = x.iter().zip(y).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum();
                    let expected = squared_norms[column] - sum as f32 * (2.0 * terms[i].step * steps[column]);
                    assert_eq!(
                        estimates[i][column].to_bits(),
                        expected.to_bits(),
                        "anchor {i}, candidate {column}"
                    );
                }
            }
        }
    }

    proptest! {
        /// The tile of the 256 bits of AVX-VNNI, whether the CPU has it or not.
        #[test]
        fn a_tile_of_emulated_instructions_computes_products(
            bytes in rows(AVXVNNI_ANCHORS, Bits::Eight, 127),
            words in rows(AVXVNNI_ANCHORS, Bits::Sixteen, i16::MAX),
        ) {
            bytes.assert_estimated(|anchors, terms, panel, to| {
                tile::<_, Bytes, AVXVNNI_ANCHORS>(Emulated::<8>, anchors, terms, panel, to);
            });
            words.assert_estimated(|anchors, terms, panel, to| {
                tile::<_, Words, AVXVNNI_ANCHORS>(Emulated::<8>, anchors, terms, panel, to);
            });
        }
    }

    #[test]
    fn all_sets_compute_products() {
        let kernels = Isa::available()
            .into_iter()
            .flat_map(|isa| [Bits::Eight, Bits::Sixteen].map(|bits| Kernel::choose(isa, bits)));
        for kernel in kernels.flatten() {
            proptest!(|(rows in rows(kernel.tile_anchors(), kernel.bits, kernel.levels()))| {
                rows.assert_estimated(|anchors, terms, panel, to| kernel.estimate(anchors, terms, panel, to));
            });
        }
    }
}
