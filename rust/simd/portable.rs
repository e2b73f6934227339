//! What every CPU has: arrays, which compilers put into the registers of the target's baseline.

use super::Simd;

/// The token of the portable path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portable;

impl Simd for Portable {
    type F64x8 = [f64; 8];

    #[inline(always)]
    fn widen(self, from: &[f32; 8]) -> [f64; 8] {
        from.map(f64::from)
    }

    #[inline(always)]
    fn add(self, a: [f64; 8], b: [f64; 8]) -> [f64; 8] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn subtract(self, a: [f64; 8], b: [f64; 8]) -> [f64; 8] {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn multiply(self, a: [f64; 8], b: [f64; 8]) -> [f64; 8] {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn to_array(self, x: [f64; 8]) -> [f64; 8] {
        x
    }

    type U16s = [u16; 8];
    const U16_LANES: usize = 8;

    #[inline(always)]
    fn splat_u16(self, x: u16) -> [u16; 8] {
        [x; 8]
    }

    #[inline(always)]
    fn load_u16(self, from: &[u16]) -> [u16; 8] {
        *from.first_chunk().expect("8 lanes")
    }

    #[inline(always)]
    fn xor_u16(self, a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        std::array::from_fn(|lane| a[lane] ^ b[lane])
    }

    #[inline(always)]
    fn multiply_u16(self, a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        std::array::from_fn(|lane| a[lane].wrapping_mul(b[lane]))
    }

    #[inline(always)]
    fn below_u16(self, x: [u16; 8], limit: [u16; 8]) -> u32 {
        (0..8).map(|lane| u32::from(x[lane] < limit[lane]) << lane).sum()
    }

    const F32_LANES: usize = 8;

    #[inline(always)]
    fn between_f32(self, from: &[f32], low: f32, high: f32) -> u32 {
        let x: &[f32; 8] = from.first_chunk().expect("8 lanes");
        (0..8).map(|lane| u32::from(low < x[lane] && x[lane] < high) << lane).sum()
    }

    #[inline(always)]
    fn sums_between_f32(self, from: &[f32], more: f32, low: &[f32], high: &[f32]) -> u32 {
        let [x, low, high] = [from, low, high].map(|x| x.first_chunk::<8>().expect("8 lanes"));
        (0..8).map(|lane| u32::from(low[lane] < x[lane] + more && x[lane] + more < high[lane]) << lane).sum()
    }
}
