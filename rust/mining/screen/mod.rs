//! The screen: which rows *may* lie in a window of distances from an anchor.
//!
//! It measures in low precision, which is fast and inexact, and drops a candidate only when a proven
//! bound says that its float64 distance is outside the window. What it lets through is decided by
//! [`exact`](super::exact): the screen can cost time, never an answer.
//!
//! # The bound
//!
//! Rows are scaled by one power of two, so that the longest has a norm in `[1/2, 1)`, or as near as a
//! float32 factor brings it (`2^12` at most). In that scale let `d` be the squared distance of an anchor
//! and a candidate in real numbers. Scaled, moved and turned together (`integer`) or only scaled
//! (`float`), rows keep their distances: `d = |x - y|^2`.
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
//! * `integer`: the sum of products is exact; it is converted, the steps are multiplied, and the two are
//!   multiplied: `g = 3.1 u`, and `a` covers steps whose product underflows.
//! * `float`: `g = K u / (1 - K u)` for `K` columns in any order of summation, fused or not (Higham 2002,
//!   section 3.1), and `a = K 2^-125` for products that underflow.
//!
//! `E = e (|X|^2 + |Y|^2) + 2^-100` with `e = g + 2^-20` (16 u) leaves 8 u and more for what the comparison
//! itself rounds. So a candidate is outside the window unless
//!
//! ```text
//! (sqrt(above) - |r| - |t|)^2 - E  <  v + |X|^2  <  (sqrt(below) + |r| + |t|)^2 + E
//! ```
//!
//! A panel is compared with its largest `|t|` and `|Y|`. Square roots of edges and residuals are moved
//! outwards by `2^-20`, many times what their evaluation rounds.
//!
//! The definition's float64 distance is `d` times `1 + (K + 8) 2^-53` at most, and a metric's scale adds a
//! few roundings: windows are widened by `(K + 16) 2^-50`. As everywhere in the miner, the floating-point
//! mode is the default one of IEEE 754: subnormal numbers are not flushed to zero.
//!
//! For unit rows of 512 Gaussian numbers `|r| + |t|` is 0.019 in 8 bits, 0.037 in 7 and 0.0004 in 16, so a
//! distance of 1 is known to 0.04, 0.08 and 0.0008, against a margin of 0.3.

use std::ops::Range;

use super::points::{Place, Points, Sets};
use crate::Isa;
use crate::{Interrupt, Result};

mod float;
#[cfg(target_arch = "x86_64")]
mod integer;
mod mark;

use float::Float;
#[cfg(target_arch = "x86_64")]
use integer::{Bits, Integer};
pub use mark::Edges;
use mark::mark;

/// Candidates in a panel, the unit in which they are packed and multiplied.
const COLUMNS: usize = 32;

/// Anchors that share one pass over the candidates, which then come from L3 or memory at 2.6 bytes a
/// cycle. A multiple of the rows of every register tile (12, 8, 4).
pub const BLOCK: usize = 24;

/// Panels in a stretch, whose estimates for a block are kept: 10,240 candidates, 960 KiB.
const STRETCH: usize = 320;

/// What is dearer: to multiply, or to let a row through that is not inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Multiply fast: of what passes, little is looked at.
    Coarse,
    /// Multiply closely: what passes is looked at, and many rows are near the window.
    Fine,
}

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

    /// Whether it ends earlier.
    pub fn is_narrower_than(self, other: Self) -> bool {
        self.below < other.below
    }

    /// Whether it holds nothing.
    pub fn is_empty(self) -> bool {
        self.above >= self.below
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

    /// The anchors, by place.
    fn anchors(&self) -> &[Coded];

    /// The candidates, by place.
    fn candidates(&self) -> &[Coded];

    /// One product, within the same bound.
    fn one(&self, anchor: Place, candidate: Place) -> f32;

    /// Packs at most [`BLOCK`] anchors, to be multiplied with one panel after the other.
    fn block<'b>(&'b self, anchors: &[Place]) -> Estimate<'b>;
}

/// Writes `v` of anchor i and the candidates of the given panel to row i, of [`BLOCK`] rows.
type Estimate<'b> = Box<dyn Fn(usize, &[f32; COLUMNS], &mut [[f32; COLUMNS]]) + 'b>;

/// What the bound needs of one panel's candidates.
struct Panel {
    /// `n`, infinite past the end.
    squared_norms: [f32; COLUMNS],
    /// The largest `n`.
    squared_norm: f32,
    /// The largest `|t|`.
    residual: f32,
}

/// Covers the float32 evaluation of a term of the bound.
const RAISE: f64 = 1.0 + 1.0 / (1 << 20) as f64;
const LOWER: f64 = 1.0 - 1.0 / (1 << 20) as f64;

/// `e - g` of the bound.
const ROUNDED: f64 = 1.0 / (1 << 20) as f64;

/// `2^-100`, more than `2 a` of the bound.
const UNDERFLOW: f64 = 1.0 / (1_u128 << 100) as f64;

impl<'a> Screen<'a> {
    /// Codes and packs the rows.
    pub fn new(sets: &'a Sets, precision: Precision, isa: Isa, interrupt: &Interrupt) -> Result<Self> {
        let longest = |points: &Points| points.squared_norms.iter().fold(0.0_f64, |a, &b| a.max(b));
        let scale = power_of_two_below(longest(&sets.anchors).max(longest(sets.candidates())));
        let product = choose_product(sets, precision, scale as f32, isa, interrupt)?;
        let points = sets.candidates();
        let panels = product.candidates().chunks(COLUMNS).map(|panel| {
            let mut squared_norms = [f32::INFINITY; COLUMNS];
            let mut largest = Coded::default();
            for (to, coded) in squared_norms.iter_mut().zip(panel) {
                *to = coded.squared_norm as f32;
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
            isa,
            squared_scale: scale * scale,
            widening: (points.width() as f64 + 16.0) * 2_f64.powi(-50),
            error: product.error() + ROUNDED,
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
        let (x, y) = (self.product.anchors()[anchor as usize], self.product.candidates()[candidate as usize]);
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

    /// Whether the estimates for all candidates are kept at once.
    pub fn is_one_stretch(&self) -> bool {
        self.panels.len() <= STRETCH
    }

    /// The candidates in stretches, as numbers of panels.
    pub fn stretches(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let count = self.panels.len();
        (0..count).step_by(STRETCH).map(move |first| first..count.min(first + STRETCH))
    }

    /// At most [`BLOCK`] anchors, packed.
    pub fn block<'b>(&'b self, anchors: &[Place], estimates: &'b mut Estimates) -> Block<'b> {
        debug_assert!(anchors.len() <= BLOCK);
        estimates.resize(BLOCK * self.panels.len().min(STRETCH), [0.0; COLUMNS]);
        Block {
            screen: self,
            estimate: self.product.block(anchors),
            coded: anchors.iter().map(|&place| self.product.anchors()[place as usize]).collect(),
            estimates,
            stretch: 0..0,
        }
    }
}

/// `v` of [`BLOCK`] anchors, for one panel after the other.
pub type Estimates = Vec<[f32; COLUMNS]>;

/// Some anchors and their estimated distances to one stretch of the candidates.
pub struct Block<'a> {
    screen: &'a Screen<'a>,
    estimate: Estimate<'a>,
    coded: Vec<Coded>,
    estimates: &'a mut Estimates,
    stretch: Range<usize>,
}

impl Block<'_> {
    /// Goes on to a stretch.
    pub fn measure(&mut self, stretch: Range<usize>, interrupt: &Interrupt) -> Result<()> {
        for (panel, estimates) in stretch.clone().zip(self.estimates.chunks_exact_mut(BLOCK)) {
            interrupt.check()?;
            (self.estimate)(panel, &self.screen.panels[panel].squared_norms, estimates);
        }
        self.stretch = stretch;
        Ok(())
    }

    /// The panels of the stretch.
    pub fn panels(&self) -> Range<usize> {
        self.stretch.clone()
    }

    /// Anchor i.
    pub fn row(&self, i: usize) -> Row<'_> {
        Row { block: self, i }
    }
}

/// One anchor and its estimated distances to a stretch of the candidates.
pub struct Row<'a> {
    block: &'a Block<'a>,
    i: usize,
}

impl Row<'_> {
    fn estimates(&self, panel: usize) -> &[f32; COLUMNS] {
        &self.block.estimates[(panel - self.block.stretch.start) * BLOCK + self.i]
    }

    /// What is known of a candidate of the stretch.
    pub fn bounds(&self, candidate: Place) -> Bounds {
        let (screen, place) = (self.block.screen, candidate as usize);
        let v = self.estimates(place / COLUMNS)[place % COLUMNS];
        screen.bounds_of(v, self.block.coded[self.i], screen.product.candidates()[place])
    }

    /// Whether a candidate of the stretch may lie between the edges.
    pub fn may_hold(&self, edges: &Edges, candidate: Place) -> bool {
        let (panel, column) = (candidate as usize / COLUMNS, candidate as usize % COLUMNS);
        let (low, high) = edges.of_panel(&self.block.screen.panels[panel]);
        let v = self.estimates(panel)[column];
        low < v && v < high
    }

    /// Marks the candidates of the stretch that may lie in the window; rows of the anchor's own identity
    /// are among them. Returns how many these are.
    pub fn mark(&self, window: Window, marks: &mut Vec<u32>) -> usize {
        let block = self.block;
        marks.resize(block.stretch.len(), 0);
        let panels = &block.screen.panels[block.stretch.clone()];
        mark(block.screen.isa, &block.estimates[self.i..], panels, &self.edges(window), marks);
        marks.iter().map(|marks| marks.count_ones() as usize).sum()
    }

    /// Calls `visit` for every candidate that is marked.
    pub fn visit(&self, marks: &[u32], mut visit: impl FnMut(Place)) {
        for (panel, &marks) in self.block.stretch.clone().zip(marks) {
            visit_marked(panel, marks, &mut visit);
        }
    }

    /// Calls `visit` for every candidate of one panel that may lie between the edges.
    pub fn visit_panel(&self, panel: usize, edges: &Edges, visit: impl FnMut(Place)) {
        let screen = self.block.screen;
        let mut marks = [0];
        mark(screen.isa, &[*self.estimates(panel)], &screen.panels[panel..=panel], edges, &mut marks);
        visit_marked(panel, marks[0], visit);
    }

    /// The edges of a window around the anchor.
    pub fn edges(&self, window: Window) -> Edges {
        Edges::new(window, self.block.coded[self.i], self.block.screen.error)
    }
}

fn visit_marked(panel: usize, mut marks: u32, mut visit: impl FnMut(Place)) {
    while marks != 0 {
        visit((panel * COLUMNS) as Place + marks.trailing_zeros());
        marks &= marks - 1;
    }
}

/// The places in a panel.
fn places(candidates: &Points, panel: usize) -> impl Iterator<Item = Place> + use<> {
    let first = panel * COLUMNS;
    first as Place..candidates.len().min(first + COLUMNS) as Place
}

/// Whole numbers where the CPU multiplies them, else float32.
fn choose_product<'a>(
    sets: &'a Sets,
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] precision: Precision,
    scale: f32,
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] isa: Isa,
    interrupt: &Interrupt,
) -> Result<Box<dyn Product + 'a>> {
    #[cfg(target_arch = "x86_64")]
    {
        let bits = match precision {
            Precision::Coarse => Bits::Eight,
            Precision::Fine => Bits::Sixteen,
        };
        if let Some(integer) = Integer::new(sets, bits, scale, isa, interrupt)? {
            return Ok(Box::new(integer));
        }
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

    fn sets(embeddings: &[f32], dim: usize, options: &Options, isa: Isa) -> Sets {
        let labels: Vec<i64> = (0..(embeddings.len() / dim) as i64).collect();
        let anchors = Rows { embeddings, labels: &labels, ids: None };
        let input = Input { dim, anchors, references: None };
        Sets::new(&input, options, isa, &Interrupt::new()).unwrap()
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
            let interrupt = Interrupt::new();
            for (isa, precision) in paths() {
                let sets = sets(&embeddings, dim, &OPTIONS, isa);
                let points = &sets.anchors;
                let screen = Screen::new(&sets, precision, isa, &interrupt).unwrap();
                let anchors: Vec<Place> = (0..count as Place).collect();
                for target in 0..count as Place {
                    let windows: Vec<Window> = anchors.iter().map(|&anchor| {
                        let d = exact::distance(isa, points.values(anchor), points.values(target));
                        screen.window(d.next_down(), d.next_up())
                    }).collect();
                    let mut seen = vec![false; count];
                    for (anchors, windows) in anchors.chunks(BLOCK).zip(windows.chunks(BLOCK)) {
                        let mut estimates = Vec::new();
                        let mut block = screen.block(anchors, &mut estimates);
                        for stretch in screen.stretches() {
                            block.measure(stretch, &interrupt).unwrap();
                            for (i, window) in windows.iter().enumerate() {
                                let (row, mut marks) = (block.row(i), Vec::new());
                                row.mark(*window, &mut marks);
                                row.visit(&marks, |place| seen[anchors[i] as usize] |= place == target);
                            }
                        }
                    }
                    prop_assert!(seen.iter().all(|&seen| seen), "{} dropped row {target}", isa.name());
                    for (&anchor, &window) in anchors.iter().zip(&windows) {
                        prop_assert!(window.may_hold(screen.bounds(anchor, target)), "{}", isa.name());
                    }
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
        let interrupt = Interrupt::new();
        for (isa, precision) in paths() {
            let sets = sets(&embeddings, dim, &Options { normalize: true, ..OPTIONS }, isa);
            let points = &sets.anchors;
            let screen = Screen::new(&sets, precision, isa, &interrupt).unwrap();
            let window = screen.window(1.9, 2.1);
            let mut estimates = Vec::new();
            let mut block = screen.block(&[0], &mut estimates);
            let portable = isa == Isa::PORTABLE;
            let stray = if precision == Precision::Fine || portable { 0.002 } else { 0.15 };
            let (mut through, mut strays) = (0, 0);
            for stretch in screen.stretches() {
                block.measure(stretch, &interrupt).unwrap();
                let row = block.row(0);
                let mut marks = Vec::new();
                row.mark(window, &mut marks);
                row.visit(&marks, |place| {
                    let d = exact::distance(isa, points.values(0), points.values(place));
                    through += 1;
                    strays += usize::from(!(1.9 - stray..2.1 + stray).contains(&d));
                });
            }
            assert!(
                through > 10 && strays == 0,
                "{} {precision:?}: {through} through, {strays} of them astray",
                isa.name()
            );
        }
    }
}
