//! Which of the qualifying negatives is picked: the one with the smallest keyed hash.
//!
//! The hash is a pure function of `(seed, anchor id, positive id, negative id)`, so a pick depends
//! on nothing else: not on threads, tiles, instruction sets, the order of rows, or which rows that
//! do not qualify are present.
//!
//! * Every row has a *code*, 64 bits mixed from its id and the seed. For one seed the map is a
//!   bijection, so codes differ where ids differ.
//! * Every pair has a *key*, 64 bits mixed from the codes of its anchor and positive; the two enter
//!   differently, so the key of (a, p) tells nothing about that of (p, a).
//! * The priority of a negative is `mix32(low half) << 32 | mix32(high half)` of `code ^ key`.
//!   [`mix32`] is a bijection with full avalanche: two priorities of one pair never tie, and the
//!   order that one key gives the negatives tells nothing about the order that another key gives.
//!
//! Two halves instead of one 64-bit mixer, because a scan needs only the low one: 32-bit lanes,
//! two multiplications, 16 candidates in six AVX-512 instructions ([`probe`](super::probe)). `tests/test_picks.py`
//! checks uniformity and independence (chi-square over seeds, pairs and ids).

/// 2^64 / golden ratio, the increment of `SplitMix64`.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of `SplitMix64` (variant 13 of Stafford's mixers).
const fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Multipliers of [`mix32`], from Wellons' hash prospector (bias 0.107).
pub const MULTIPLIERS: [u32; 2] = [0x21F0_AAAD, 0xD35A_2D97];

/// A 32-bit mixer with two multiplications.
#[inline(always)]
pub const fn mix32(z: u32) -> u32 {
    let mut z = fold(z).wrapping_mul(MULTIPLIERS[0]);
    z = (z ^ (z >> 15)).wrapping_mul(MULTIPLIERS[1]);
    z ^ (z >> 15)
}

/// The first step of [`mix32`]. It is linear: `fold(code ^ key)` is `fold(code) ^ fold(key)`.
#[inline(always)]
pub const fn fold(z: u32) -> u32 {
    z ^ (z >> 16)
}

/// The code of the row with this id.
pub const fn code(seed: u64, id: i64) -> u64 {
    mix64(mix64((id as u64).wrapping_add(GOLDEN)) ^ mix64(seed.wrapping_add(GOLDEN.wrapping_mul(2))))
}

/// The key of a pair, from the codes of its anchor and positive.
pub const fn pair_key(anchor: u64, positive: u64) -> u64 {
    mix64(mix64(anchor ^ GOLDEN).wrapping_add(positive))
}

/// The priority of a negative for a pair: the smallest is picked.
pub const fn priority(key: u64, negative: u64) -> u64 {
    let mixed = key ^ negative;
    (mix32(mixed as u32) as u64) << 32 | mix32((mixed >> 32) as u32) as u64
}
