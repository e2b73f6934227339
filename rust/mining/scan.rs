//! Finds the rows with the smallest draws of a pair.
//!
//! A random pick is the qualifying negative with the smallest draw. So instead of finding all that qualify
//! and then the smallest of these, the miner takes the few smallest draws of all rows and tests these rows in
//! order: the first that qualifies is the pick. A scan of N draws costs a hundredth of N products of 512
//! numbers, and where half of the rows qualify (random embeddings), two tests per pair are enough. Where few
//! qualify (trained embeddings), none of the tested rows may, and the pair goes to the
//! [`screen`](super::screen), which then skips what was tested here.

use super::hash::Key;
use super::points::Place;
use super::shortage::THREADS;
use crate::simd::{Isa, Simd, per_isa};
use crate::{Result, memory};

/// The threshold that about `count` of `all` rows draw below. At most 65,535, so rows that draw that are
/// never below it.
pub fn threshold(count: usize, all: usize) -> u16 {
    (count << 16).div_ceil(all).min(usize::from(u16::MAX)) as u16
}

/// Rows that one word of marks stands for.
const WORD: usize = u64::BITS as usize;

/// A bit for each of the [`WORD`] rows from `64 * number` on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Word {
    number: u32,
    marks: u64,
}

/// Calls `found` for each row that draws below `threshold` under `key`. `scratch` is memory to
/// reuse.
pub fn below(
    isa: Isa,
    spreads: &[u16],
    key: Key,
    threshold: u16,
    scratch: &mut Vec<Word>,
    mut found: impl FnMut(Place) -> Result<()>,
) -> Result<()> {
    memory::resize(scratch, spreads.len().div_ceil(WORD), Word::default(), THREADS)?;
    let count = mark(isa, spreads, key.map(), threshold, scratch);
    for &Word { number, mut marks } in &scratch[..count] {
        while marks != 0 {
            found(number * WORD as u32 + marks.trailing_zeros())?;
            marks &= marks - 1;
        }
    }
    Ok(())
}

per_isa! {
    /// Sets a bit for each row below the threshold. Returns how many words have one: they are the first.
    fn mark(spreads: &[u16], map: (u16, u16), threshold: u16, words: &mut [Word]) -> usize => mark_body
}

#[inline(always)]
fn mark_body<S: Simd>(
    simd: S,
    spreads: &[u16],
    map: (u16, u16),
    threshold: u16,
    words: &mut [Word],
) -> usize {
    let (all, rest) = spreads.as_chunks::<WORD>();
    let mut count = 0;
    let mut add = |number, marks| {
        words[count] = Word { number, marks };
        count += usize::from(marks != 0); // few are: a jump would be predicted wrong for most of these
    };
    for (number, spreads) in (0..).zip(all) {
        add(number, mark_word(simd, spreads, map, threshold));
    }
    if !rest.is_empty() {
        let mut padded = [0; WORD];
        padded[..rest.len()].copy_from_slice(rest);
        add(all.len() as u32, mark_word(simd, &padded, map, threshold) & ((1 << rest.len()) - 1));
    }
    count
}

#[inline(always)] // not a closure, which would be compiled for the portable instructions
fn mark_word<S: Simd>(simd: S, spreads: &[u16; WORD], map: (u16, u16), threshold: u16) -> u64 {
    let (xor, factor, limit) = (simd.splat_u16(map.0), simd.splat_u16(map.1), simd.splat_u16(threshold));
    let mut marks = 0;
    for start in (0..WORD).step_by(S::U16_LANES) {
        let draws = simd.multiply_u16(simd.xor_u16(simd.load_u16(&spreads[start..]), xor), factor);
        marks |= u64::from(simd.below_u16(draws, limit)) << start;
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::super::hash;
    use super::*;

    #[test]
    fn finds_what_a_plain_scan_finds() {
        let hashes: Vec<u64> = (0..1000).map(|id| hash::row_hash(5, id)).collect();
        let low: Vec<u32> = hashes.iter().map(|&hash| hash as u32).collect();
        for isa in Isa::available() {
            for (count, len) in [(1, 1000), (26, 1000), (999, 1000), (26, 63), (7, 8), (0, 0)] {
                for positive in 0..4 {
                    let (anchor, limit) = (hashes[7], threshold(count, len.max(1)));
                    let key = Key::new(anchor, hashes[positive]);
                    let plain: Vec<Place> = (0..len as Place)
                        .filter(|&place| key.draw(hashes[place as usize]).high < limit)
                        .collect();
                    let mut spreads = vec![0; len];
                    hash::spreads(isa, anchor, &low[..len], &mut spreads);
                    let mut found = Vec::new();
                    let find = |place| {
                        found.push(place);
                        Ok(())
                    };
                    below(isa, &spreads, key, limit, &mut Vec::new(), find).unwrap();
                    assert_eq!(found, plain, "{}: {count} of {len}, pair {positive}", isa.name());
                }
            }
        }
    }
}
