//! Distance-weighted picks: near, middling and far negatives alike (Wu et al. 2017, "Sampling matters in deep
//! embedding learning", arXiv:1706.07567, section 4).
//!
//! Of unit rows that point anywhere, in `n` columns, a squared distance `s` from a row has the density
//!
//! ```text
//! q(s) = s^((n - 2) / 2) (1 - s / 4)^((n - 3) / 2)
//! ```
//!
//! up to a constant; nearly all are near 2. A negative has the weight `1 / q(s)`. As in the paper, distances
//! below 0.5 (`s` of 0.25) are taken as 0.5, so that the nearest do not outweigh all others. Distances above
//! `sqrt(2)`, where the density has its peak, are taken as `sqrt(2)`: a farther one is never likelier.
//!
//! With `u` the uniform number in (0, 1) that the draw of a negative stands for, the one with the smallest
//! `-ln(1 - u) / w` is picked: each with a probability in proportion to its weight, and those that follow it
//! as by a choice without replacement (Efraimidis and Spirakis 2006). Weights of 512 columns leave the range of
//! float64, so logarithms are compared: `ln(-ln(1 - u)) - ln(w)`.
//!
//! All is evaluated in float64 in a fixed order, the logarithm included, so that it is the same to the last bit
//! everywhere, and in NumPy (`tests/reference.py`).

use super::hash::Draw;
use super::shortage::ROWS;
use crate::{Result, memory};

/// The weights of rows of some number of columns.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Factors of `-ln(s)` and of `-ln(1 - s / 4)`.
    near: f64,
    far: f64,
    /// The logarithms of the weights of [`STEPS`] + 1 squared distances from [`NEAREST`] to [`FARTHEST`].
    table: Vec<f64>,
}

/// Squared distances outside are taken as at the edge.
const NEAREST: f64 = 0.25;
const FARTHEST: f64 = 2.0;

/// A step is 0.002 in squared distance: finer than what an estimate in 8 bits tells.
const STEPS: usize = 1024;

/// Terms of the series of the logarithm: of numbers between the square roots of 1/2 and 2 the next one is below
/// `2^-60`.
const TERMS: u32 = 11;

/// Covers the rounding of the logarithm of a weight, which is below 2^21.
const ROUNDED: f64 = 1e-6;

impl Weights {
    /// For rows of `dim` columns.
    pub fn new(dim: usize) -> Result<Self> {
        let dim = dim as f64;
        let weights =
            Self { near: ((dim - 2.0) / 2.0).max(0.0), far: ((dim - 3.0) / 2.0).max(0.0), table: Vec::new() };
        let table = memory::collect((0..=STEPS).map(|step| weights.ln_weight(at_step(step))), ROWS)?;
        Ok(Self { table, ..weights })
    }

    /// Logarithm of the weight of a squared distance: it never grows with the distance, but for rounding.
    fn ln_weight(&self, squared: f64) -> f64 {
        let s = squared.clamp(NEAREST, FARTHEST);
        -(self.near * ln(s) + self.far * ln(1.0 - s / 4.0))
    }

    /// What a distance-weighted pick orders by.
    pub fn key(&self, draw: Draw, squared: f64) -> f64 {
        ln(-ln(1.0 - draw.uniform())) - self.ln_weight(squared)
    }

    /// A squared distance beyond which no draw with a high part of at least `least` has a smaller key. None if such
    /// a draw has a larger key at every distance.
    pub fn farthest(&self, key: f64, least: u16) -> Option<f64> {
        // -ln(1 - u) is at least u.
        let u = if least == 0 { Draw::LEAST_UNIFORM } else { f64::from(least) / 65536.0 };
        let needed = u.ln() - key - ROUNDED;
        match self.table.partition_point(|&ln_weight| ln_weight >= needed) {
            0 => None,
            STEPS.. => Some(f64::INFINITY),
            step => Some(at_step(step)),
        }
    }
}

/// The squared distance of an entry of the table.
fn at_step(step: usize) -> f64 {
    NEAREST + (FARTHEST - NEAREST) * step as f64 / STEPS as f64
}

/// The natural logarithm of a positive normal number, in a fixed order of evaluation: within 2 units in the last
/// place of it, or 2^-53 where it is near 0.
fn ln(x: f64) -> f64 {
    let (mut mantissa, mut exponent) = split(x);
    if mantissa < std::f64::consts::FRAC_1_SQRT_2 {
        (mantissa, exponent) = (2.0 * mantissa, exponent - 1.0);
    }
    // ln(m) = 2 artanh(t), t = (m - 1) / (m + 1)
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let mut series = 0.0;
    for term in (0..TERMS).rev() {
        series = series * square + 1.0 / f64::from(2 * term + 1);
    }
    exponent * std::f64::consts::LN_2 + 2.0 * t * series
}

/// `x` as a mantissa in `[1/2, 1)` and a power of two.
fn split(x: f64) -> (f64, f64) {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1022;
    (f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52), f64::from(exponent))
}

/// Bits in the order of the numbers.
pub fn ordered_bits(x: f64) -> u64 {
    let bits = x.to_bits();
    if x.is_sign_negative() { !bits } else { bits | 1 << 63 }
}

/// The number with these.
pub fn from_ordered_bits(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 0 { !bits } else { bits & !(1 << 63) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_logarithm_is_one(x in prop_oneof![1e-300_f64..1e300, 0.4_f64..2.1, 1e-16_f64..1.0]) {
            let (ours, theirs) = (ln(x), x.ln());
            prop_assert!((ours - theirs).abs() <= 4e-16 * theirs.abs().max(0.25), "{x}: {ours}, {theirs}");
        }

        #[test]
        fn bits_are_in_the_order_of_the_numbers(x in -1e3_f64..1e3, y in -1e3_f64..1e3) {
            prop_assert_eq!(x < y, ordered_bits(x) < ordered_bits(y));
            prop_assert_eq!(from_ordered_bits(ordered_bits(x)).to_bits(), x.to_bits());
        }

        #[test]
        fn weights_fall_with_the_distance(dim in 1_usize..2000, x in 0.0_f64..5.0, y in 0.0_f64..5.0) {
            let weights = Weights::new(dim).unwrap();
            let (near, far) = (x.min(y), x.max(y));
            prop_assert!(weights.ln_weight(near) >= weights.ln_weight(far) - 1e-12);
        }

        #[test]
        fn no_farther_one_has_the_key(
            dim in 1_usize..2000, key in -500_f64..500.0, beyond in 0.0_f64..1.0, high: u16, tie: u64, least: u16,
        ) {
            let (weights, draw) = (Weights::new(dim).unwrap(), Draw::new(high, tie));
            let farthest = weights.farthest(key, least).unwrap_or(0.0);
            if high >= least && farthest.is_finite() {
                prop_assert!(weights.key(draw, farthest + beyond) >= key);
            }
        }
    }
}
