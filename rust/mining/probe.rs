//! The shortcut for random picks: try the negatives in the order of their hash.
//!
//! The pick is the qualifying negative with the smallest hash. So instead of finding all that
//! qualify and then the smallest among them, take the few smallest hashes of all rows and test
//! these, in order: the first that qualifies is the pick. A scan of N hashes costs a few hundredths
//! of N products of 512 numbers, and with half of the rows qualifying (random embeddings) two tests
//! a pair are enough. Where few qualify (trained embeddings) the tests run dry and the pair goes on
//! to the [`screen`](super::screen), which then skips what was tested here.

use super::hash::{MULTIPLIERS, fold, mix32};
use super::isa::{Isa, Kind};
use super::points::Place;

/// A row whose hash is below the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The low hash.
    pub hash: u32,
    /// Whose it is.
    pub place: Place,
}

/// Thresholds are multiples of this: whether a hash is below is then decided before the last step of
/// [`mix32`], `z ^ (z >> 15)`, which leaves the upper 15 bits alone.
const GRAIN: u32 = 1 << 17;

/// A threshold that about `count` of `of` rows are below, where `count < of`.
pub fn threshold(count: usize, of: usize) -> u32 {
    let exact = ((count as u64) << 32) / of as u64;
    exact.next_multiple_of(u64::from(GRAIN)).min(u64::from(u32::MAX - GRAIN + 1)) as u32
}

/// Collects the rows whose hash under `key` is below `threshold`, of [`threshold`].
pub fn below(
    isa: Isa,
    folded_codes: &[u32],
    key: u32,
    threshold: u32,
    scratch: &mut Vec<u64>,
    hits: &mut Vec<Hit>,
) {
    debug_assert!(threshold.is_multiple_of(GRAIN));
    scratch.resize(folded_codes.len().div_ceil(WORD), 0);
    let folded_key = fold(key);
    mark(isa, folded_codes, folded_key, threshold, scratch);
    hits.clear();
    for (number, &marks) in scratch.iter().enumerate() {
        let mut marks = marks;
        while marks != 0 {
            let place = number * WORD + marks.trailing_zeros() as usize;
            // Folding twice is the identity.
            let hash = mix32(fold(folded_codes[place] ^ folded_key));
            hits.push(Hit { hash, place: place as Place });
            marks &= marks - 1;
        }
    }
}

/// Rows that one word of marks stands for.
const WORD: usize = u64::BITS as usize;

/// Sets a bit for each row below the threshold.
fn mark(isa: Isa, folded_codes: &[u32], folded_key: u32, threshold: u32, marks: &mut [u64]) {
    match isa.0 {
        Kind::Portable => mark_body::<[u32; 8]>(folded_codes, folded_key, threshold, marks),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of this kind exists only where the CPU was seen to have it.
        Kind::Avx2 => unsafe { x86::avx2(folded_codes, folded_key, threshold, marks) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kind::Avx512 | Kind::Avx512Vnni => unsafe {
            x86::avx512(folded_codes, folded_key, threshold, marks);
        },
    }
}

#[inline(always)]
fn mark_body<V: Lanes>(folded_codes: &[u32], folded_key: u32, threshold: u32, marks: &mut [u64]) {
    let (words, rest) = folded_codes.as_chunks::<WORD>();
    for (codes, marks) in words.iter().zip(&mut *marks) {
        *marks = mark_word::<V>(codes, folded_key, threshold);
    }
    if !rest.is_empty() {
        let mut codes = [0; WORD];
        codes[..rest.len()].copy_from_slice(rest);
        marks[words.len()] = mark_word::<V>(&codes, folded_key, threshold) & ((1 << rest.len()) - 1);
    }
}

#[inline(always)] // no closure, which would be compiled for the portable instructions
fn mark_word<V: Lanes>(codes: &[u32; WORD], folded_key: u32, threshold: u32) -> u64 {
    let mut marks = 0;
    for start in (0..WORD).step_by(V::LANES) {
        let mixed = V::load(&codes[start..]).xor(V::splat(folded_key)).multiply(V::splat(MULTIPLIERS[0]));
        let hash = mixed.fold15().multiply(V::splat(MULTIPLIERS[1]));
        marks |= u64::from(hash.below(V::splat(threshold))) << start;
    }
    marks
}

/// A vector register of hashes. Its methods are called only from a function that is compiled for its
/// instruction set.
trait Lanes: Copy {
    /// At most 16.
    const LANES: usize;
    fn splat(x: u32) -> Self;
    fn load(from: &[u32]) -> Self;
    fn xor(self, other: Self) -> Self;
    fn multiply(self, factor: Self) -> Self;
    /// `z ^ (z >> 15)`.
    fn fold15(self) -> Self;
    /// A bit for each lane that is below the limit.
    fn below(self, limit: Self) -> u16;
}

impl Lanes for [u32; 8] {
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(x: u32) -> Self {
        [x; 8]
    }

    #[inline(always)]
    fn load(from: &[u32]) -> Self {
        *from.first_chunk().expect("8 lanes")
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] ^ other[lane])
    }

    #[inline(always)]
    fn multiply(self, factor: Self) -> Self {
        std::array::from_fn(|lane| self[lane].wrapping_mul(factor[lane]))
    }

    #[inline(always)]
    fn fold15(self) -> Self {
        self.map(|z| z ^ (z >> 15))
    }

    #[inline(always)]
    fn below(self, limit: Self) -> u16 {
        (0..8).map(|lane| u16::from(self[lane] < limit[lane]) << lane).sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_castsi256_ps, _mm256_cmpgt_epi32, _mm256_loadu_si256, _mm256_movemask_ps,
        _mm256_mullo_epi32, _mm256_set1_epi32, _mm256_srli_epi32, _mm256_xor_si256, _mm512_cmplt_epu32_mask,
        _mm512_loadu_si512, _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_srli_epi32, _mm512_xor_si512,
    };

    use super::{Lanes, mark_body};

    #[target_feature(enable = "avx2")]
    pub fn avx2(folded_codes: &[u32], folded_key: u32, threshold: u32, marks: &mut [u64]) {
        mark_body::<__m256i>(folded_codes, folded_key, threshold, marks);
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512(folded_codes: &[u32], folded_key: u32, threshold: u32, marks: &mut [u64]) {
        mark_body::<__m512i>(folded_codes, folded_key, threshold, marks);
    }

    macro_rules! lanes {
        ($vector:ty, $lanes:literal, $splat:ident, $load:ident, $xor:ident, $multiply:ident, $shift:ident,
         |$hash:ident, $limit:ident| $below:expr) => {
            impl Lanes for $vector {
                const LANES: usize = $lanes;

                #[inline(always)]
                fn splat(x: u32) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $splat(x.cast_signed()) }
                }

                #[inline(always)]
                fn load(from: &[u32]) -> Self {
                    let from = &from[..$lanes];
                    // SAFETY: the slice holds all lanes; the caller is compiled for this vector.
                    unsafe { $load(from.as_ptr().cast()) }
                }

                #[inline(always)]
                fn xor(self, other: Self) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $xor(self, other) }
                }

                #[inline(always)]
                fn multiply(self, factor: Self) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $multiply(self, factor) }
                }

                #[inline(always)]
                fn fold15(self) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $xor(self, $shift::<15>(self)) }
                }

                #[inline(always)]
                fn below(self, $limit: Self) -> u16 {
                    let $hash = self;
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $below }
                }
            }
        };
    }

    lanes!(
        __m256i,
        8,
        _mm256_set1_epi32,
        _mm256_loadu_si256,
        _mm256_xor_si256,
        _mm256_mullo_epi32,
        _mm256_srli_epi32,
        |hash, limit| {
            // AVX2 compares signed numbers only.
            let lowest = _mm256_set1_epi32(i32::MIN);
            let below = _mm256_cmpgt_epi32(_mm256_xor_si256(limit, lowest), _mm256_xor_si256(hash, lowest));
            _mm256_movemask_ps(_mm256_castsi256_ps(below)) as u16
        }
    );
    lanes!(
        __m512i,
        16,
        _mm512_set1_epi32,
        _mm512_loadu_si512,
        _mm512_xor_si512,
        _mm512_mullo_epi32,
        _mm512_srli_epi32,
        |hash, limit| _mm512_cmplt_epu32_mask(hash, limit)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_plain_scan_finds() {
        let codes: Vec<u32> = (0..1000_u32).map(|i| mix32(i.wrapping_mul(0x9E37_79B9))).collect();
        let folded: Vec<u32> = codes.iter().map(|&code| fold(code)).collect();
        for isa in Isa::available() {
            for (count, len) in [(1, 1000), (26, 1000), (999, 1000), (26, 63), (7, 8), (0, 0)] {
                for key in [0, 1, 0xDEAD_BEEF, u32::MAX] {
                    let limit = threshold(count, len.max(1));
                    let plain: Vec<Hit> = codes[..len]
                        .iter()
                        .enumerate()
                        .map(|(place, &code)| Hit { hash: mix32(code ^ key), place: place as Place })
                        .filter(|hit| hit.hash < limit)
                        .collect();
                    let (mut scratch, mut hits) = (Vec::new(), Vec::new());
                    below(isa, &folded[..len], key, limit, &mut scratch, &mut hits);
                    assert_eq!(hits, plain, "{}: {count} of {len}, key {key}", isa.name());
                }
            }
        }
    }
}
