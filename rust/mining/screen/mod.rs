//! The screen: which rows *may* lie in a window of distances from an anchor.
//!
//! It measures in low precision, which is fast and inexact, and drops a candidate only when a proven
//! bound says that its float64 distance is outside the window. What it lets through is decided by
//! [`exact`](super::exact): the screen can cost time, never an answer.
//!
//! # The bound
//!
//! Rows are scaled by one power of two, so that the longest has a norm in `[1/2, 1)`; in that scale let
//! `d` be the squared distance of an anchor and a candidate in real numbers. Scaled, moved and turned
//! together (`int8`) or only scaled (`float`), rows keep their distances: `d = |x - y|^2`.
//!
//! A product works on `x = X + r` and `y = Y + t`: what it codes, and residuals of which only the lengths
//! are kept, rounded up (zero in `float`). By the triangle inequality
//!
//! ```text
//! |sqrt(d) - sqrt(D)| <= |r| + |t|                   D = |X - Y|^2 = |X|^2 + |Y|^2 - 2 X.Y
//! ```
//!
//! which is tighter the nearer the rows are. `D` is evaluated in float32. With `u = 2^-24` its rounding
//! unit, `s` the product as multiplied, `n = fl(|Y|^2)` and `v = fl(n - 2 s)`, for both kinds of product
//!
//! ```text
//! |s - X.Y| <= g |X||Y| + a
//! |v - (|Y|^2 - 2 X.Y)| <= u |Y|^2 + 2 g |X||Y| + 2 a + 1.01 u (|Y|^2 + 2 |X||Y|)
//!                       <= (g + 4 u) (|X|^2 + |Y|^2) + 2 a          (2 |X||Y| <= |X|^2 + |Y|^2)
//! ```
//!
//! * `int8`: the sum of products is exact; it is converted, the steps are multiplied, and the two are
//!   multiplied: `g = 3.1 u`, and `a` covers steps whose product underflows.
//! * `float`: `g = K u / (1 - K u)` for `K` columns in any order of summation, fused or not (Higham 2002,
//!   section 3.1), and `a = K 2^-125` for products that underflow.
//!
//! `e (|X|^2 + |Y|^2) + 2^-100` with `e = g + 2^-20` (16 u) leaves 8 u for what the comparison itself
//! rounds. So a candidate outside `(sqrt(above) - |r| - |t|)^2 - E < v + |X|^2 < (sqrt(below) + |r| + |t|)^2 + E`
//! is outside the window. A panel is compared with its largest `|t|` and `|Y|`; what passes is held
//! against its own. Square roots of edges, residuals and `E` are raised by `2^-20`, many times what their
//! evaluation rounds.
//!
//! The definition's float64 distance is `d` times `1 + (K + 8) 2^-53` at most, and a metric's scale adds a
//! few roundings: windows are widened by `(K + 16) 2^-50`. As everywhere in the miner, the floating-point
//! mode is the default one of IEEE 754: subnormal numbers are not flushed to zero.
//!
//! For unit rows of 512 Gaussian numbers `|r| + |t|` is 0.019 in 8 bits and 0.037 in 7, so a distance of 1
//! is known to 0.04 and 0.08, against a margin of 0.3.

use super::Isa;
use super::isa::per_isa;
use super::points::{Place, Points, Sets};
use crate::{Interrupt, Result};

mod float;
#[cfg(target_arch = "x86_64")]
mod int8;

use float::Float;
#[cfg(target_arch = "x86_64")]
use int8::Int8;

/// Candidates in a panel, the unit in which they are packed and multiplied.
const COLUMNS: usize = 32;

/// Anchors that share one pass over the candidates. Their codes, 48 KiB of 512 columns, stay in a core's
/// L2 beside the panel in L1. A multiple of the rows of every register tile (12, 8, 4).
pub const BLOCK: usize = 96;

/// Squared distances in the screen's scale, open at both ends.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    above: f64,
    below: f64,
}

impl Window {
    /// The window that lets nothing through.
    pub const EMPTY: Self = Self { above: f64::INFINITY, below: f64::NEG_INFINITY };

    /// The smallest window that holds both.
    pub fn union(self, other: Self) -> Self {
        Self { above: self.above.min(other.above), below: self.below.max(other.below) }
    }

    /// Whether a distance between the bounds may lie inside.
    pub fn may_hold(self, bounds: Bounds) -> bool {
        bounds.high > self.above && bounds.low < self.below
    }
}

/// What the screen knows of one squared distance: it is neither below `low` nor above `high`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    low: f64,
    high: f64,
}

/// All rows, coded and packed for the product, with the terms of the bound.
pub struct Screen<'a> {
    sets: &'a Sets,
    isa: Isa,
    product: Box<dyn Product + 'a>,
    /// Factor of squared lengths.
    squared_scale: f64,
    /// By how much windows are widened, of the distance.
    widening: f64,
    /// `e` of the bound.
    error: f64,
    panels: Vec<Panel>,
}

/// What the bound needs of a coded row.
#[derive(Debug, Clone, Copy, Default)]
struct Coded {
    /// `|X|^2`, rounded to float64.
    squared_norm: f64,
    /// At least `|r|`.
    residual: f64,
}

/// The rows in the precision that they are multiplied in.
trait Product: Sync {
    /// `g` of the bound.
    fn error(&self) -> f64;

    /// The anchor at a place.
    fn anchor(&self, place: Place) -> Coded;

    /// The candidate at a place.
    fn candidate(&self, place: Place) -> Coded;

    /// One product, within the same bound.
    fn one(&self, anchor: Place, candidate: Place) -> f32;

    /// Packs at most [`BLOCK`] anchors, to be multiplied with one panel after the other.
    fn block<'b>(&'b self, anchors: &[Place]) -> Multiply<'b>;
}

/// Writes the products of anchor i and the candidates of the given panel to row i, of [`BLOCK`] rows.
type Multiply<'b> = Box<dyn Fn(usize, &mut [[f32; COLUMNS]]) + 'b>;

/// What the bound needs of one panel's candidates.
struct Panel {
    /// `n`, infinite past the end.
    squared_norms: [f32; COLUMNS],
    /// The largest `n`.
    squared_norm: f32,
    /// The largest `|t|`.
    residual: f32,
}

/// What the bound needs of a block of anchors: [`BLOCK`] numbers each.
struct Anchors {
    squared_norms: Vec<f32>,
    residuals: Vec<f32>,
    /// Square roots of the edges of the windows.
    above: Vec<f32>,
    below: Vec<f32>,
    /// The edges for one panel, relative to `|X|^2`.
    low: Vec<f32>,
    high: Vec<f32>,
}

/// Covers the float32 evaluation of a term of the bound.
const RAISE: f64 = 1.0 + 1.0 / (1 << 20) as f64;
const LOWER: f64 = 1.0 - 1.0 / (1 << 20) as f64;

/// `2^-100`, more than `2 a` of the bound.
const UNDERFLOW: f64 = 1.0 / (1_u128 << 100) as f64;

impl<'a> Screen<'a> {
    /// Codes and packs the rows.
    pub fn new(sets: &'a Sets, isa: Isa, interrupt: &Interrupt) -> Result<Self> {
        let longest = |points: &Points| points.squared_norms.iter().fold(0.0_f64, |a, &b| a.max(b));
        let scale = power_of_two_below(longest(&sets.anchors).max(longest(sets.candidates())));
        let product = choose_product(sets, scale as f32, isa, interrupt)?;
        let candidates = sets.candidates();
        let panels = (0..candidates.len().div_ceil(COLUMNS)).map(|panel| {
            let mut squared_norms = [f32::INFINITY; COLUMNS];
            let mut largest = Coded::default();
            for (column, place) in places(candidates, panel).enumerate() {
                let coded = product.candidate(place);
                squared_norms[column] = coded.squared_norm as f32;
                largest.squared_norm = largest.squared_norm.max(coded.squared_norm);
                largest.residual = largest.residual.max(coded.residual);
            }
            Panel {
                squared_norms,
                squared_norm: (largest.squared_norm * RAISE) as f32,
                residual: (largest.residual * RAISE) as f32,
            }
        });
        Ok(Self {
            sets,
            isa,
            squared_scale: scale * scale,
            widening: (candidates.width() as f64 + 16.0) * 2_f64.powi(-50),
            error: product.error() + 2_f64.powi(-20),
            panels: panels.collect(),
            product,
        })
    }

    /// The squared distances between `above` and `below`, both outside.
    pub fn window(&self, above: f64, below: f64) -> Window {
        // The constant covers edges that are subnormal, here or in the scale.
        let outwards = |edge: f64, sign: f64| {
            let scaled = edge * self.squared_scale;
            scaled + sign * (scaled.abs() * self.widening + 1e-300)
        };
        Window { above: outwards(above, -1.0), below: outwards(below, 1.0) }
    }

    /// What one product tells of the squared distance of an anchor and a candidate.
    pub fn bounds(&self, anchor: Place, candidate: Place) -> Bounds {
        let (x, y) = (self.product.anchor(anchor), self.product.candidate(candidate));
        let v = y.squared_norm as f32 - 2.0 * self.product.one(anchor, candidate);
        self.bounds_of(v, x, y)
    }

    fn bounds_of(&self, v: f32, x: Coded, y: Coded) -> Bounds {
        let coded = f64::from(v) + x.squared_norm;
        let error = self.error * (x.squared_norm + y.squared_norm) + UNDERFLOW;
        let residual = x.residual + y.residual;
        let low = (coded - error).max(0.0).sqrt() - residual;
        let high = (coded + error).max(0.0).sqrt() + residual;
        Bounds { low: low.max(0.0).powi(2), high: high * high }
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
        let coded: Vec<Coded> = anchors.iter().map(|&place| self.product.anchor(place)).collect();
        let mut terms = Anchors::new(&coded, windows);
        let mut products = vec![[0.0; COLUMNS]; BLOCK];
        let mut flagged = vec![false; anchors.len()];
        for (number, panel) in self.panels.iter().enumerate() {
            interrupt.check()?;
            multiply(number, &mut products);
            select(self.isa, &products, panel, self.error as f32, &mut terms, &mut flagged);
            for i in flagged.iter().enumerate().filter(|(_, flagged)| **flagged).map(|(i, _)| i) {
                for (column, place) in places(self.sets.candidates(), number).enumerate() {
                    let v = panel.squared_norms[column] - 2.0 * products[i][column];
                    if terms.low[i] < v && v < terms.high[i] {
                        let bounds = self.bounds_of(v, coded[i], self.product.candidate(place));
                        if windows[i].may_hold(bounds) {
                            visit(i, place, bounds, &mut windows[i]);
                        }
                    }
                }
                terms.set_window(i, windows[i]);
            }
        }
        Ok(())
    }
}

impl Anchors {
    fn new(coded: &[Coded], windows: &[Window]) -> Self {
        let numbers = || vec![0.0; coded.len()];
        let mut terms = Self {
            squared_norms: coded.iter().map(|x| x.squared_norm as f32).collect(),
            residuals: coded.iter().map(|x| (x.residual * RAISE) as f32).collect(),
            above: numbers(),
            below: numbers(),
            low: numbers(),
            high: numbers(),
        };
        for (i, &window) in windows.iter().enumerate() {
            terms.set_window(i, window);
        }
        terms
    }

    fn set_window(&mut self, i: usize, window: Window) {
        self.above[i] = (window.above.max(0.0).sqrt() * LOWER) as f32;
        self.below[i] = (window.below.max(0.0).sqrt() * RAISE) as f32;
    }
}

/// Marks the anchors whose windows may hold one of a panel's candidates, and leaves their edges in
/// `low` and `high`.
#[inline(always)]
#[allow(clippy::needless_bitwise_bool)] // without a branch the loop is a handful of vector instructions
fn select_body(
    products: &[[f32; COLUMNS]],
    panel: &Panel,
    error: f32,
    terms: &mut Anchors,
    flagged: &mut [bool],
) {
    let anchors = terms.squared_norms.iter().zip(&terms.residuals).zip(terms.above.iter().zip(&terms.below));
    for ((low, high), ((&squared_norm, &residual), (&above, &below))) in
        terms.low.iter_mut().zip(&mut terms.high).zip(anchors)
    {
        let residual = residual + panel.residual;
        let offset = error * (squared_norm + panel.squared_norm) + UNDERFLOW as f32;
        let (nearest, farthest) = ((above - residual).max(0.0), below + residual);
        *low = nearest * nearest * LOWER as f32 - (squared_norm + offset);
        *high = farthest * farthest * RAISE as f32 - (squared_norm - offset);
    }
    for ((flagged, products), (&low, &high)) in
        flagged.iter_mut().zip(products).zip(terms.low.iter().zip(&terms.high))
    {
        let mut any = 0;
        for c in 0..COLUMNS {
            let v = panel.squared_norms[c] - 2.0 * products[c];
            any |= u32::from((low < v) & (v < high));
        }
        *flagged = any != 0;
    }
}

per_isa! {
    fn select(
        products: &[[f32; COLUMNS]],
        panel: &Panel,
        error: f32,
        terms: &mut Anchors,
        flagged: &mut [bool],
    ) => select_body
}

/// The places in a panel.
fn places(candidates: &Points, panel: usize) -> impl Iterator<Item = Place> + use<> {
    let first = panel * COLUMNS;
    first as Place..candidates.len().min(first + COLUMNS) as Place
}

/// 8-bit codes where the CPU multiplies them, else float32.
fn choose_product<'a>(
    sets: &'a Sets,
    scale: f32,
    isa: Isa,
    interrupt: &Interrupt,
) -> Result<Box<dyn Product + 'a>> {
    #[cfg(target_arch = "x86_64")]
    if let Some(int8) = Int8::new(sets, scale, isa, interrupt)? {
        return Ok(Box::new(int8));
    }
    Ok(Box::new(Float::new(sets, scale, interrupt)?))
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

    use super::super::{Band, Input, Metric, Options, Pairs, Pick, Rows, exact};
    use super::*;

    const OPTIONS: Options = Options {
        band: Band::Any,
        pick: Pick::All,
        negatives_per_pair: 1,
        pairs: Pairs::Ordered,
        metric: Metric::SquaredEuclidean,
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
