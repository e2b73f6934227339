//! The mixers behind every seeded choice. Frozen: other numbers would be other picks and other augmentations.

/// 2^64 / golden ratio, the increment of `SplitMix64`.
pub const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of `SplitMix64` (variant 13 of Stafford's mixers): one to one.
pub const fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Number `n`, counted from 1, of the `SplitMix64` sequence that starts at `seed`.
pub const fn split_mix(seed: u64, n: u64) -> u64 {
    mix64(seed.wrapping_add(GOLDEN.wrapping_mul(n)))
}

/// A 32-bit mixer with two multiplications; constants from Wellons' hash prospector (bias 0.107).
#[inline(always)]
pub const fn mix32(mut z: u32) -> u32 {
    z = (z ^ (z >> 16)).wrapping_mul(0x21F0_AAAD);
    z = (z ^ (z >> 15)).wrapping_mul(0xD35A_2D97);
    z ^ (z >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of Vigna's `splitmix64.c` for the seed 1234567.
    #[test]
    fn it_is_split_mix() {
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([1, 2, 3].map(|n| split_mix(1_234_567, n)), expected);
    }
}
