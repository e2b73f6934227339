//! The screen: which rows *may* lie in a window of distances from an anchor.
//!
//! It multiplies in low precision, which is fast and inexact, and drops a candidate only when a
//! proven bound says that its float64 distance is outside the window. What it lets through is
//! decided by [`exact`](super::exact): the screen can cost time, never an answer.
//!
//! # The bound
//!
//! Rows are scaled by one power of two, so that the longest has a norm in `[1/2, 1)`: nothing
//! overflows, and what underflows is covered below. In that scale, for an anchor `x` and a candidate
//! `y` in `D` dimensions, `u = 2^-24` the float32 rounding unit, `N()` the squared norm, let
//!
//! ```text
//! s = the product as multiplied     n = fl32(N(y))     v = fl32(n - 2 s)
//! ```
//!
//! The definition's distance `d` is `N(x) + N(y) - 2 x.y` up to roundings, so `v + N(x)` estimates it.
//! In float32 (`float`), in any order of summation, fused or not (Higham 2002, section 3.1):
//!
//! ```text
//! |s - x.y| <= g |x||y| + D 2^-125              g = D u / (1 - D u)
//! ```
//!
//! where the constant covers products that underflow. In 8-bit codes (`int8`), with `x = X + r`, `X` the coded row and `r` its residual (`y = Y + t` likewise), the
//! integer sum is exact, and its conversion and scaling to float32 round three times:
//!
//! ```text
//! |s - x.y| <= |X||t| + |r||y| + 3.1 u |X||Y|   (Cauchy-Schwarz: x.y - X.Y = X.t + r.y)
//! ```
//!
//! Then, for both,
//!
//! ```text
//! |n - N(y)|            <= u N(y)
//! |v - (n - 2 s)|       <= u (n + 2 |s|)
//! v - E, v + E in float32:  u (n + 2 |s| + E) each
//! d and both norms in float64:  (D + 8) 2^-51 (N(x) + N(y)), more than four times what is needed
//! ```
//!
//! D is at most 2^20 and a residual at most 0.03 of its row, so `|s| <= 1.1 |x||y|` either way, and
//! the sum is at most
//!
//! ```text
//! E = |x||y| e + 2 |X||t| + 2 |r||y|
//!   + N(y) (2^-22 + (D + 8) 2^-51) + N(x) (D + 8) 2^-51 + D 2^-122
//! e = 2 g + 2^-21 with r = t = 0 (float),  2^-20 (int8)
//! ```
//!
//! with each factor raised by `1 + 2^-20` for its own float32 evaluation. Then
//! `v - E <= d - N(x) <= v + E`. The window's edges are moved outwards by the rounding of their own
//! evaluation. For unit rows of 512 Gaussian numbers E is 6e-5 in float32 and 0.03 in 8 bits,
//! against a margin of 0.3. As everywhere in the miner, the floating-point mode is the default one of
//! IEEE 754: subnormal numbers are not flushed to zero.

use super::Isa;
use super::isa::per_isa;
use super::points::{Place, Points};
use crate::{Interrupt, Result};

mod float;
#[cfg(target_arch = "x86_64")]
mod int8;

use float::Float;
#[cfg(target_arch = "x86_64")]
use int8::Int8;

/// Candidates in a panel, the unit in which they are packed and multiplied.
const COLUMNS: usize = 32;

/// Anchors that share one pass over the candidates: 96 x 512 float32 are 192 KiB, which stays in
/// a core's L2. A multiple of the rows of every register tile (12, 6, 4).
pub const BLOCK: usize = 96;

/// Distances from one anchor, in the screen's scale and relative to the anchor's squared norm.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    below: f32,
    above: f32,
}

impl Window {
    /// The window that lets nothing through.
    pub const EMPTY: Self = Self { below: f32::INFINITY, above: f32::NEG_INFINITY };

    /// The smallest window that holds both.
    pub fn union(self, other: Self) -> Self {
        Self { below: self.below.min(other.below), above: self.above.max(other.above) }
    }

    /// Whether a distance between the bounds may lie inside.
    pub fn may_hold(self, bounds: Bounds) -> bool {
        bounds.high > self.below && bounds.low < self.above
    }
}

/// What is dearer: to multiply, or to let a row through that is not inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Multiply fast: few rows are near the window, or few of those that pass are looked at.
    Coarse,
    /// Multiply in float32: what passes is looked at, and many rows are near the window.
    Fine,
}

/// What the screen knows of one distance: it is neither below `low` nor above `high`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    low: f32,
    high: f32,
}

/// All rows, packed for the product, with the terms of the bound.
pub struct Screen<'a> {
    points: &'a Points,
    isa: Isa,
    product: Box<dyn Product + 'a>,
    /// Factor of squared lengths.
    squared_scale: f64,
    /// `e` of the bound, raised.
    product_error: f64,
    /// `(D + 8) 2^-51`.
    wide_error: f64,
    /// `D 2^-122`.
    underflow: f64,
    candidates: Vec<Candidates>,
}

/// The rows in the precision that they are multiplied in.
trait Product: Sync {
    /// `e` of the bound.
    fn error(&self) -> f64;

    /// Length of what the row at a place loses in this precision.
    fn residual(&self, place: Place) -> f64;

    /// Packs at most [`BLOCK`] anchors, to be multiplied with one panel after the other.
    fn block<'b>(&'b self, anchors: &[Place]) -> Multiply<'b>;
}

/// Writes the products of anchor i and the candidates of the given panel to row i, of [`BLOCK`] rows.
type Multiply<'b> = Box<dyn Fn(usize, &mut [[f32; COLUMNS]]) + 'b>;

/// What the bound needs of one panel's candidates.
#[derive(Clone, Copy)]
struct Candidates {
    squared_norms: [f32; COLUMNS],
    /// `|y|`.
    norms: [f32; COLUMNS],
    /// `|t|`.
    residuals: [f32; COLUMNS],
    /// The terms with `N(y)`.
    slacks: [f32; COLUMNS],
}

/// What the bound needs of one anchor.
#[derive(Clone, Copy)]
struct Anchor {
    /// `|x| e + 2 |r|`.
    per_norm: f32,
    /// `2 |X|`.
    per_residual: f32,
    /// The terms with `N(x)`, and the constant.
    slack: f32,
}

/// Covers the float32 evaluation of a term of the bound.
const RAISE: f64 = 1.0 + 1.0 / (1 << 20) as f64;

impl<'a> Screen<'a> {
    /// Packs the rows: one copy of them, of a quarter of the size in 8 bits.
    pub fn new(points: &'a Points, precision: Precision, isa: Isa, interrupt: &Interrupt) -> Result<Self> {
        let longest = points.squared_norms.iter().fold(0.0_f64, |a, &b| a.max(b));
        let scale = power_of_two_below(longest);
        let product = choose_product(points, precision, scale as f32, isa, interrupt)?;
        let d = points.width() as f64;
        let mut screen = Self {
            points,
            isa,
            squared_scale: scale * scale,
            product_error: product.error() * RAISE,
            wide_error: (d + 8.0) * 2_f64.powi(-51),
            underflow: d * 2_f64.powi(-122),
            product,
            candidates: Vec::new(),
        };
        screen.candidates =
            (0..points.len().div_ceil(COLUMNS)).map(|panel| screen.candidates(panel)).collect();
        Ok(screen)
    }

    fn candidates(&self, panel: usize) -> Candidates {
        // Places past the end are far away: hardly a window holds them, and none is visited.
        let mut candidates = Candidates {
            squared_norms: [f32::INFINITY; COLUMNS],
            norms: [0.0; COLUMNS],
            residuals: [0.0; COLUMNS],
            slacks: [0.0; COLUMNS],
        };
        for (column, place) in places(self.points, panel).enumerate() {
            let norm = self.points.squared_norms[place as usize] * self.squared_scale;
            candidates.squared_norms[column] = norm as f32;
            candidates.norms[column] = (norm.sqrt() * RAISE) as f32;
            candidates.residuals[column] = (self.product.residual(place) * RAISE) as f32;
            candidates.slacks[column] =
                (norm * (2_f64.powi(-22) + self.wide_error) * RAISE + self.underflow) as f32;
        }
        candidates
    }

    fn anchor(&self, place: Place) -> Anchor {
        let norm = self.points.squared_norms[place as usize] * self.squared_scale;
        let (length, residual) = (norm.sqrt(), self.product.residual(place));
        Anchor {
            per_norm: ((length * self.product_error + 2.0 * residual) * RAISE) as f32,
            per_residual: (2.0 * (length + residual) * RAISE) as f32,
            slack: (norm * self.wide_error * RAISE + self.underflow) as f32,
        }
    }

    /// The squared distances between `above` and `below` (both outside) of the row at `anchor`.
    pub fn window(&self, anchor: Place, above: f64, below: f64) -> Window {
        let norm = self.points.squared_norms[anchor as usize];
        let edge = |d: f64, outwards: f64| {
            let moved = (d - norm) + outwards * (d.abs() + norm) * 2_f64.powi(-50);
            let scaled = moved * self.squared_scale;
            let near = scaled as f32;
            // One step outwards covers the rounding to float32.
            if outwards < 0.0 { near.next_down() } else { near.next_up() }
        };
        Window {
            below: if above == f64::NEG_INFINITY { f32::NEG_INFINITY } else { edge(above, -1.0) },
            above: if below == f64::INFINITY { f32::INFINITY } else { edge(below, 1.0) },
        }
    }

    /// Calls `visit(i, place, bounds, &mut windows[i])` for every row that may lie in the window of
    /// `anchors[i]`; rows of the anchor's own identity are among them. The visitor may narrow the
    /// window. At most [`BLOCK`] anchors.
    pub fn sweep(
        &self,
        anchors: &[Place],
        windows: &mut [Window],
        interrupt: &Interrupt,
        mut visit: impl FnMut(usize, Place, Bounds, &mut Window),
    ) -> Result<()> {
        debug_assert!(anchors.len() <= BLOCK && anchors.len() == windows.len());
        let multiply = self.product.block(anchors);
        let terms: Vec<Anchor> = anchors.iter().map(|&place| self.anchor(place)).collect();
        let mut products = vec![[0.0; COLUMNS]; BLOCK];
        let (mut low, mut high, mut keep) = ([0.0; COLUMNS], [0.0; COLUMNS], [0; COLUMNS]);
        for (panel, candidates) in self.candidates.iter().enumerate() {
            interrupt.check()?;
            multiply(panel, &mut products);
            for (i, anchor) in terms.iter().enumerate() {
                let window = &mut windows[i];
                let any =
                    bound(self.isa, &products[i], candidates, anchor, window, &mut low, &mut high, &mut keep);
                if any {
                    let kept =
                        places(self.points, panel).enumerate().filter(|(column, _)| keep[*column] != 0);
                    for (column, place) in kept {
                        visit(i, place, Bounds { low: low[column], high: high[column] }, window);
                    }
                }
            }
        }
        Ok(())
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)] // one fused loop: its inputs and its three output rows
#[allow(clippy::needless_bitwise_bool)] // without a branch the loop is a handful of vector instructions
fn bound_body(
    products: &[f32; COLUMNS],
    candidates: &Candidates,
    anchor: &Anchor,
    window: &Window,
    low: &mut [f32; COLUMNS],
    high: &mut [f32; COLUMNS],
    keep: &mut [u32; COLUMNS],
) -> bool {
    let mut any = 0;
    for c in 0..COLUMNS {
        let estimate = candidates.squared_norms[c] - 2.0 * products[c];
        let error = anchor.per_norm * candidates.norms[c]
            + anchor.per_residual * candidates.residuals[c]
            + (candidates.slacks[c] + anchor.slack);
        low[c] = estimate - error;
        high[c] = estimate + error;
        keep[c] = u32::from((high[c] > window.below) & (low[c] < window.above));
        any |= keep[c];
    }
    any != 0
}

per_isa! {
    /// Bounds one anchor's distances to a panel; `keep` marks those that the window may hold.
    #[allow(clippy::too_many_arguments)]
    fn bound(
        products: &[f32; COLUMNS],
        candidates: &Candidates,
        anchor: &Anchor,
        window: &Window,
        low: &mut [f32; COLUMNS],
        high: &mut [f32; COLUMNS],
        keep: &mut [u32; COLUMNS],
    ) -> bool {
        portable => bound_body,
        avx2 => bound_body,
        avx512 => bound_body,
    }
}

/// The places in a panel.
fn places(points: &Points, panel: usize) -> impl Iterator<Item = Place> + use<> {
    let first = panel * COLUMNS;
    first as Place..points.len().min(first + COLUMNS) as Place
}

/// 8-bit integers where that is wanted and the CPU and the rows are made for them, else float32.
fn choose_product<'a>(
    points: &'a Points,
    precision: Precision,
    scale: f32,
    isa: Isa,
    interrupt: &Interrupt,
) -> Result<Box<dyn Product + 'a>> {
    #[cfg(target_arch = "x86_64")]
    if precision == Precision::Coarse
        && let Some(int8) = Int8::new(points, scale, isa, interrupt)?
    {
        return Ok(Box::new(int8));
    }
    Ok(Box::new(Float::new(points, scale, isa, interrupt)?))
}

/// The power of two that brings a squared length into `[1/4, 1)`, as a factor of the length.
fn power_of_two_below(squared: f64) -> f64 {
    if squared == 0.0 {
        return 1.0;
    }
    let exponent = squared.sqrt().log2().floor() as i32 + 1;
    // The factor must itself be a float32, subnormal ones excluded: rows of norm 2^-126 and below
    // stay small, which the underflow term covers.
    2_f64.powi((-exponent).clamp(-126, 126))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Band, Input, Options, Pairs, Pick, exact};
    use super::*;

    const OPTIONS: Options = Options {
        band: Band::Any,
        pick: Pick::All,
        negatives_per_pair: 1,
        pairs: Pairs::Ordered,
        margin: 0.0,
        max_ap: None,
        normalize: false,
        seed: 0,
    };

    fn paths() -> impl Iterator<Item = (Isa, Precision)> {
        Isa::available().into_iter().flat_map(|isa| [(isa, Precision::Coarse), (isa, Precision::Fine)])
    }

    /// Rows of very different lengths, with near-duplicates, whose squares leave float32's range.
    fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
        let dim = prop_oneof![1_usize..70, Just(511), Just(2049)];
        (dim, 1_usize..45, any::<u64>(), 0_u8..4).prop_map(|(dim, count, seed, kind)| {
            let mut state = seed;
            let mut random = move || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            let base: Vec<f32> = (0..dim).map(|_| random()).collect();
            let mut values = Vec::with_capacity(count * dim);
            for _ in 0..count {
                let power = random();
                let length = match kind {
                    0 => 1.0,
                    1 => 10_f32.powf(38.0 * power),
                    2 => 10_f32.powf(-45.0 * power.abs()),
                    _ => 10_f32.powf(3.0 * power),
                };
                let near = random() > 0.5;
                values.extend(base.iter().map(|&x| {
                    let value = if near { x * (1.0 + 2e-7 * random()) } else { random() };
                    (value * length).clamp(f32::MIN, f32::MAX)
                }));
            }
            (dim, values)
        })
    }

    proptest! {
        /// The narrowest window around each exact distance lets its row through, on every path.
        #[test]
        fn never_drops_what_is_inside((dim, embeddings) in rows()) {
            let count = embeddings.len() / dim;
            let labels: Vec<i64> = (0..count as i64).collect();
            let input = Input { embeddings: &embeddings, dim, labels: &labels, ids: None };
            let interrupt = Interrupt::new();
            for (isa, precision) in paths() {
                let points = Points::new(&input, &OPTIONS, isa).unwrap();
                let screen = Screen::new(&points, precision, isa, &interrupt).unwrap();
                let anchors: Vec<Place> = (0..count as Place).collect();
                for target in 0..count as Place {
                    let mut windows: Vec<Window> = anchors.iter().map(|&anchor| {
                        let d = exact::distance(isa, points.values(anchor), points.values(target));
                        screen.window(anchor, d.next_down(), d.next_up())
                    }).collect();
                    let mut seen = vec![false; count];
                    screen.sweep(&anchors, &mut windows, &interrupt, |i, place, _, _| {
                        seen[i] |= place == target;
                    }).unwrap();
                    prop_assert!(seen.iter().all(|&seen| seen), "{} dropped row {target}", isa.name());
                }
            }
        }
    }

    /// The bound is worth something: of unit rows it lets through only those near the window.
    #[test]
    fn drops_what_is_far_outside() {
        let (count, dim) = (200, 64);
        let mut state = 1_u64;
        let embeddings: Vec<f32> = (0..count * dim)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        let labels: Vec<i64> = (0..count as i64).collect();
        let input = Input { embeddings: &embeddings, dim, labels: &labels, ids: None };
        let interrupt = Interrupt::new();
        for (isa, precision) in paths() {
            let points = Points::new(&input, &Options { normalize: true, ..OPTIONS }, isa).unwrap();
            let screen = Screen::new(&points, precision, isa, &interrupt).unwrap();
            let stray = if precision == Precision::Fine { 0.001 } else { 0.1 };
            let mut windows = [screen.window(0, 1.9, 2.1)];
            let mut through = 0;
            let mut strays = 0;
            screen
                .sweep(&[0], &mut windows, &interrupt, |_, place, _, _| {
                    let d = exact::distance(isa, points.values(0), points.values(place));
                    through += 1;
                    strays += usize::from(!(1.9 - stray..2.1 + stray).contains(&d));
                })
                .unwrap();
            assert!(
                through > 10 && strays == 0,
                "{}: {through} through, {strays} of them astray",
                isa.name()
            );
        }
    }
}
