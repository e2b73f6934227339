//! The rows with the smallest draws of a pair.
//!
//! A random pick is the qualifying negative with the smallest draw. So instead of finding all that
//! qualify and then the smallest among them, take the few smallest draws of all rows and test these,
//! in order: the first that qualifies is the pick. A scan of N draws costs a hundredth of N products of
//! 512 numbers, and with half of the rows qualifying (random embeddings) two tests a pair are enough.
//! Where few qualify (trained embeddings) the tests run dry and the pair goes on to the
//! [`screen`](super::screen), which then skips what was tested here.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256i, __m512i};

use super::hash::Key;
use super::points::Place;
use crate::isa::{Isa, per_isa};

/// The threshold that about `count` of `of` rows draw below; all but those that draw highest, at most.
pub fn threshold(count: usize, of: usize) -> u16 {
    (count << 16).div_ceil(of).min(usize::from(u16::MAX)) as u16
}

/// Rows that one word of marks stands for.
const WORD: usize = u64::BITS as usize;

/// Calls `found` for each row that draws below `threshold` under `key`. `scratch` is memory to be used
/// again.
pub fn below(
    isa: Isa,
    spreads: &[u16],
    key: Key,
    threshold: u16,
    scratch: &mut Vec<u64>,
    mut found: impl FnMut(Place),
) {
    scratch.resize(spreads.len().div_ceil(WORD), 0);
    mark(isa, spreads, key.map(), threshold, scratch);
    for (number, &marks) in scratch.iter().enumerate() {
        let mut marks = marks;
        while marks != 0 {
            found((number * WORD + marks.trailing_zeros() as usize) as Place);
            marks &= marks - 1;
        }
    }
}

per_isa! {
    /// Sets a bit for each row below the threshold.
    fn mark(spreads: &[u16], map: (u16, u16), threshold: u16, marks: &mut [u64]) {
        portable => mark_body::<[u16; 8]>,
        avx2 => mark_body::<__m256i>,
        avx512 => mark_body::<__m512i>,
    }
}

#[inline(always)]
fn mark_body<V: Lanes>(spreads: &[u16], map: (u16, u16), threshold: u16, marks: &mut [u64]) {
    let (words, rest) = spreads.as_chunks::<WORD>();
    for (spreads, marks) in words.iter().zip(&mut *marks) {
        *marks = mark_word::<V>(spreads, map, threshold);
    }
    if !rest.is_empty() {
        let mut padded = [0; WORD];
        padded[..rest.len()].copy_from_slice(rest);
        marks[words.len()] = mark_word::<V>(&padded, map, threshold) & ((1 << rest.len()) - 1);
    }
}

#[inline(always)] // no closure, which would be compiled for the portable instructions
fn mark_word<V: Lanes>(spreads: &[u16; WORD], map: (u16, u16), threshold: u16) -> u64 {
    let mut marks = 0;
    for start in (0..WORD).step_by(V::LANES) {
        let draws = V::load(&spreads[start..]).xor(V::splat(map.0)).multiply(V::splat(map.1));
        marks |= u64::from(draws.below(V::splat(threshold))) << start;
    }
    marks
}

/// A vector register of draws. Its methods are called only from a function that is compiled for its
/// instruction set.
trait Lanes: Copy {
    /// At most 32.
    const LANES: usize;
    fn splat(x: u16) -> Self;
    fn load(from: &[u16]) -> Self;
    fn xor(self, other: Self) -> Self;
    fn multiply(self, factor: Self) -> Self;
    /// A bit for each lane that is below the limit.
    fn below(self, limit: Self) -> u32;
}

impl Lanes for [u16; 8] {
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(x: u16) -> Self {
        [x; 8]
    }

    #[inline(always)]
    fn load(from: &[u16]) -> Self {
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
    fn below(self, limit: Self) -> u32 {
        (0..8).map(|lane| u32::from(self[lane] < limit[lane]) << lane).sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_cmpgt_epi16, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_mullo_epi16,
        _mm256_packs_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_xor_si256,
        _mm512_cmplt_epu16_mask, _mm512_loadu_si512, _mm512_mullo_epi16, _mm512_set1_epi16, _mm512_xor_si512,
    };

    use super::Lanes;

    macro_rules! lanes {
        ($vector:ty, $lanes:literal, $splat:ident, $load:ident, $xor:ident, $multiply:ident,
         |$draws:ident, $limit:ident| $below:expr) => {
            impl Lanes for $vector {
                const LANES: usize = $lanes;

                #[inline(always)]
                fn splat(x: u16) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $splat(x.cast_signed()) }
                }

                #[inline(always)]
                fn load(from: &[u16]) -> Self {
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
                fn below(self, $limit: Self) -> u32 {
                    let $draws = self;
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $below }
                }
            }
        };
    }

    lanes!(
        __m256i,
        16,
        _mm256_set1_epi16,
        _mm256_loadu_si256,
        _mm256_xor_si256,
        _mm256_mullo_epi16,
        |draws, limit| {
            // AVX2 compares signed numbers only, and packs each half of a register by itself.
            let lowest = _mm256_set1_epi16(i16::MIN);
            let below = _mm256_cmpgt_epi16(_mm256_xor_si256(limit, lowest), _mm256_xor_si256(draws, lowest));
            let bytes = _mm256_movemask_epi8(_mm256_packs_epi16(below, _mm256_setzero_si256()));
            (bytes & 0xFF | bytes >> 8 & 0xFF00).cast_unsigned()
        }
    );
    lanes!(
        __m512i,
        32,
        _mm512_set1_epi16,
        _mm512_loadu_si512,
        _mm512_xor_si512,
        _mm512_mullo_epi16,
        |draws, limit| _mm512_cmplt_epu16_mask(draws, limit)
    );
}

#[cfg(test)]
mod tests {
    use super::super::hash;
    use super::*;

    #[test]
    fn finds_what_a_plain_scan_finds() {
        let codes: Vec<u64> = (0..1000).map(|id| hash::code(5, id)).collect();
        let low: Vec<u32> = codes.iter().map(|&code| code as u32).collect();
        for isa in Isa::available() {
            for (count, len) in [(1, 1000), (26, 1000), (999, 1000), (26, 63), (7, 8), (0, 0)] {
                for positive in 0..4 {
                    let (anchor, limit) = (codes[7], threshold(count, len.max(1)));
                    let key = Key::new(anchor, codes[positive]);
                    let plain: Vec<Place> = (0..len as Place)
                        .filter(|&place| key.order(codes[place as usize]).draw < limit)
                        .collect();
                    let mut spreads = vec![0; len];
                    hash::spreads(isa, anchor, &low[..len], &mut spreads);
                    let mut found = Vec::new();
                    below(isa, &spreads, key, limit, &mut Vec::new(), |place| found.push(place));
                    assert_eq!(found, plain, "{}: {count} of {len}, pair {positive}", isa.name());
                }
            }
        }
    }
}
