//! Which of the qualifying negatives is picked: the one with the smallest keyed hash.
//!
//! The hash is a pure function of `(seed, anchor id, positive id, negative id)`, so a pick depends
//! on nothing else: not on threads, tiles, instruction sets, the order of rows, or which rows that
//! do not qualify are present.
//!
//! * Every row has a *code*, 64 bits mixed from its id and the seed. For one seed the map is a
//!   bijection, so codes differ where ids differ.
//! * For one anchor every row has a *spread*, 16 bits fully mixed from the low halves of its code and of
//!   the anchor's: for another anchor or another seed another one, that tells nothing about the first.
//! * Every pair has a *key*, 64 bits mixed from the codes of its anchor and positive; the two enter
//!   differently, so the key of (a, p) tells nothing about that of (p, a).
//! * The *draw* of a negative is `(spread ^ key) * key'` in 16 bits, and `mix64(code ^ key)`, which is a
//!   bijection, decides between equal ones: two draws of one pair never tie.
//!
//! Uniform: over seeds the spreads of an anchor's negatives are independent and uniform, a pair's map
//! of them is one to one, and ties are decided by a full mixer; so each of m negatives is the smallest
//! with probability 1/m. Independent: another pair's keys are new, and `key` alone makes the second draw
//! of a row uniform whatever the first was. What is left is that rows of equal spread stay together in all
//! pairs of one anchor: for m well below 2^16, two of its pairs pick the same of m negatives with
//! probability `(1 + m / 2^18) / m` instead of `1 / m`. (And rows whose codes agree in the low half, one pair
//! among 10^5 rows, stay together for all anchors.) `tests/test_picks.py` checks both (chi-square over seeds, pairs
//! and ids).
//!
//! Why two stages: the spreads cost eight instructions for 16 rows, but once an anchor. A pair's scan then
//! costs three for 32 ([`probe`](super::probe)), and an anchor may have a hundred pairs.

use crate::mix::{GOLDEN, mix64};
use crate::simd::{Simd, per_isa};

/// A 32-bit mixer with two multiplications; constants from Wellons' hash prospector (bias 0.107).
#[inline(always)]
pub const fn mix32(mut z: u32) -> u32 {
    z = (z ^ (z >> 16)).wrapping_mul(0x21F0_AAAD);
    z = (z ^ (z >> 15)).wrapping_mul(0xD35A_2D97);
    z ^ (z >> 15)
}

/// The code of the row with this id.
pub const fn code(seed: u64, id: i64) -> u64 {
    mix64(mix64((id as u64).wrapping_add(GOLDEN)) ^ mix64(seed.wrapping_add(GOLDEN.wrapping_mul(2))))
}

/// What mixes the spreads of an anchor with this code.
const fn spread_key(anchor: u64) -> u32 {
    mix64(anchor ^ GOLDEN) as u32
}

#[inline(always)]
const fn spread(key: u32, code: u32) -> u16 {
    (mix32(code ^ key) >> 16) as u16
}

per_isa! {
    /// The spreads, for an anchor with this code, of the rows with the given low halves of codes.
    pub fn spreads(anchor: u64, codes_low: &[u32], spreads: &mut [u16]) => spreads_body
}

#[inline(always)]
fn spreads_body(_: impl Simd, anchor: u64, codes_low: &[u32], spreads: &mut [u16]) {
    let key = spread_key(anchor);
    for (to, &code) in spreads.iter_mut().zip(codes_low) {
        *to = spread(key, code);
    }
}

/// What orders the negatives of one pair.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    spread: u32,
    pair: u64,
}

impl Key {
    /// From the codes of anchor and positive.
    pub const fn new(anchor: u64, positive: u64) -> Self {
        Self { spread: spread_key(anchor), pair: mix64(mix64(anchor ^ GOLDEN).wrapping_add(positive)) }
    }

    /// The two numbers that map spreads to draws: `(spread ^ .0) * .1`.
    pub const fn map(self) -> (u16, u16) {
        (self.pair as u16, (self.pair >> 16) as u16 | 1)
    }

    /// The draw of a row with this spread, for the key's anchor.
    pub const fn draw(self, spread: u16) -> u16 {
        let (xor, factor) = self.map();
        (spread ^ xor).wrapping_mul(factor)
    }

    /// Where the row with this code comes among the negatives: the smallest is picked.
    pub const fn order(self, code: u64) -> Draw {
        Draw { draw: self.draw(spread(self.spread, code as u32)), tie: mix64(self.pair ^ code) }
    }
}

/// A draw, and what decides between equal ones: unique among the negatives of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Draw {
    /// What a scan looks for.
    pub draw: u16,
    tie: u64,
}
