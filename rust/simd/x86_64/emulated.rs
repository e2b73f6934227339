//! VNNI in plain Rust, as its instructions are defined: what the sets are compared with, and what a kernel
//! is tested on where the CPU lacks them.

use super::Products;

/// Registers of L lanes.
#[derive(Clone, Copy)]
pub(crate) struct Emulated<const L: usize>;

impl<const L: usize> Emulated<L> {
    /// Adds what `sum_of_products` makes of each two lanes.
    fn add(
        sum: [[u8; 4]; L],
        y: [[[u8; 4]; L]; 2],
        x: [[[u8; 4]; L]; 2],
        sum_of_products: impl Fn([u8; 4], [u8; 4]) -> i32,
    ) -> [[u8; 4]; L] {
        std::array::from_fn(|lane| {
            let sum = i32::from_ne_bytes(sum[lane]);
            let sums = [0, 1].map(|i| sum_of_products(y[i][lane], x[i][lane]));
            sum.wrapping_add(sums[0]).wrapping_add(sums[1]).to_ne_bytes()
        })
    }
}

impl<const L: usize> Products for Emulated<L> {
    type Vector = [[u8; 4]; L];
    const LANES: usize = L;

    fn splat(self, x: i32) -> [[u8; 4]; L] {
        [x.to_ne_bytes(); L]
    }

    fn load(self, from: &[u8]) -> [[u8; 4]; L] {
        *from.as_chunks().0.first_chunk().expect("L lanes")
    }

    fn add_products_of_bytes(
        self,
        sum: [[u8; 4]; L],
        y: [[[u8; 4]; L]; 2],
        x: [[[u8; 4]; L]; 2],
    ) -> [[u8; 4]; L] {
        Self::add(sum, y, x, |y, x| {
            y.into_iter().zip(x).map(|(y, x)| i32::from(y) * i32::from(x.cast_signed())).sum()
        })
    }

    fn add_products_of_words(
        self,
        sum: [[u8; 4]; L],
        y: [[[u8; 4]; L]; 2],
        x: [[[u8; 4]; L]; 2],
    ) -> [[u8; 4]; L] {
        let words = |[a, b, c, d]: [u8; 4]| [[a, b], [c, d]].map(|word| i32::from(i16::from_ne_bytes(word)));
        Self::add(sum, y, x, |y, x| {
            let (y, x) = (words(y), words(x));
            (y[0] * x[0]).wrapping_add(y[1] * x[1])
        })
    }

    fn subtract_scaled(self, from: &[f32], sums: [[u8; 4]; L], factor: f32, factors: &[f32], to: &mut [f32]) {
        for lane in 0..L {
            to[lane] = from[lane] - i32::from_ne_bytes(sums[lane]) as f32 * (factor * factors[lane]);
        }
    }
}
