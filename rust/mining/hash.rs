//! Which of the qualifying negatives is picked: the one with the smallest draw.
//!
//! A draw is a pure function of `(seed, anchor id, positive id, negative id)`, so a pick depends on nothing
//! else: not on threads, tiles, instruction sets, the order of the rows, or other rows that do not qualify.
//!
//! * Every row has a *hash*, 64 bits mixed from its id and the seed. For one seed the map is one to one, so
//!   hashes differ where ids differ.
//! * For one anchor, every row has a *spread*: 16 bits mixed from the low halves of its own hash and of the
//!   anchor's. The spreads of another anchor or another seed are new, and tell nothing about these.
//! * Every pair has a *key*, 64 bits mixed from the hashes of its anchor and positive. The two enter
//!   differently, so the key of (a, p) tells nothing about that of (p, a).
//! * The *draw* of a negative is `(spread ^ xor) * factor` in 16 bits, where `xor` and the odd `factor` are
//!   parts of the key. Equal ones are decided by `mix64(hash ^ key)`, which is one to one in the hash: two
//!   draws of one pair never tie.
//!
//! Uniform: over seeds, the spreads of an anchor's negatives are independent and uniform, a pair's map of
//! them is one to one, and ties are decided by a full mixer. So each of m negatives is the smallest with
//! probability 1/m.
//!
//! Independent: the key of another pair is new, and `xor` alone makes the second draw of a row uniform
//! whatever the first was. What remains is that rows of equal spread stay together in all pairs of one
//! anchor: for m well below 2^16, two of its pairs pick the same of m negatives with probability `(1 + m /
//! 2^18) / m` instead of `1 / m`. And rows whose hashes agree in the low half, one pair among 10^5 rows, stay
//! together for all anchors. `tests/mining/test_picks.py` checks both properties by chi-square over seeds, pairs and
//! ids.
//!
//! There are two stages because spreads cost eight instructions for 16 rows, but once per anchor. A scan for
//! one of its pairs then costs three for 32 rows ([`scan`](super::scan)), and an anchor may have a hundred
//! pairs.

use crate::mix::{GOLDEN, mix32, mix64, split_mix};
use crate::simd::{Simd, per_isa};

/// The hash of the row with this id.
pub const fn row_hash(seed: u64, id: i64) -> u64 {
    mix64(split_mix(id as u64, 1) ^ split_mix(seed, 2))
}

/// What mixes the spreads for an anchor with this hash.
const fn spread_key(anchor: u64) -> u32 {
    mix64(anchor ^ GOLDEN) as u32
}

#[inline(always)]
const fn spread(key: u32, hash_low: u32) -> u16 {
    (mix32(hash_low ^ key) >> 16) as u16
}

per_isa! {
    /// The spreads of the rows whose hashes have these low halves, for an anchor with this hash.
    pub fn spreads(anchor: u64, hashes_low: &[u32], spreads: &mut [u16]) => spreads_body
}

#[inline(always)]
fn spreads_body(_: impl Simd, anchor: u64, hashes_low: &[u32], spreads: &mut [u16]) {
    let key = spread_key(anchor);
    for (to, &hash_low) in spreads.iter_mut().zip(hashes_low) {
        *to = spread(key, hash_low);
    }
}

/// What orders the negatives of one pair.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    spread: u32,
    pair: u64,
}

impl Key {
    /// From the hashes of anchor and positive.
    pub const fn new(anchor: u64, positive: u64) -> Self {
        Self { spread: spread_key(anchor), pair: mix64(mix64(anchor ^ GOLDEN).wrapping_add(positive)) }
    }

    /// The *lot* of the pair: decides which pairs of an anchor are used.
    pub const fn lot(self) -> u64 {
        mix64(self.pair.wrapping_add(GOLDEN))
    }

    /// `xor` and `factor`, which map spreads to draws.
    pub const fn map(self) -> (u16, u16) {
        (self.pair as u16, (self.pair >> 16) as u16 | 1)
    }

    /// The 16 bits of the draw of a row with this spread for the pair's anchor.
    pub const fn map_spread(self, spread: u16) -> u16 {
        let (xor, factor) = self.map();
        (spread ^ xor).wrapping_mul(factor)
    }

    /// The draw of the row with this hash.
    pub const fn draw(self, hash: u64) -> Draw {
        Draw { high: self.map_spread(spread(self.spread, hash as u32)), tie: mix64(self.pair ^ hash) }
    }
}

/// What the negatives of one pair are ordered by: the smallest is picked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Draw {
    /// The 16 bits that a scan looks for.
    pub high: u16,
    /// Decides between equal ones. Unique within a pair.
    tie: u64,
}

impl Draw {
    /// The smallest number that a draw stands for.
    pub const LEAST_UNIFORM: f64 = 1.0 / (1_u64 << 53) as f64;

    /// The number in (0, 1) that it stands for: an odd multiple of `2^-53`.
    pub const fn uniform(self) -> f64 {
        let bits = (self.high as u64) << 36 | self.tie >> 28;
        (bits as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// The *lot* of the triplet: decides which triplets of an anchor are kept. Mixed again, because a draw that
    /// was picked is smaller than others, the smaller the more there were.
    pub const fn lot(self) -> u64 {
        mix64(self.tie.wrapping_add(GOLDEN))
    }

    #[cfg(test)]
    pub const fn new(high: u16, tie: u64) -> Self {
        Self { high, tie }
    }
}
