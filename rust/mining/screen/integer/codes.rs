//! Rows in 8 or 16 bits. A row `x` becomes `X = s q`, a step `s` and whole numbers `q`, its codes. The length
//! of the residual `x - X` is kept, too.
//!
//! First, all rows are moved and turned together, which changes no distance between them:
//!
//! * Their mean is subtracted, because residuals are in proportion to the length of a row. If the embeddings
//!   of
//!   a network have all but collapsed, only the differences between them remain.
//! * A Hadamard transform with random signs turns them, so that no column stands out: the largest of D
//!   columns
//!   is about `sqrt(2 ln 2D / D)` of the length, whatever the row was, and so a step fits all columns.

use rayon::prelude::*;

use super::super::BoundTerms;
use super::Bits;
use super::kernel::LANE;
use crate::mining::exact::LANES;
use crate::mining::points::{Place, Points, Sets};
use crate::mining::shortage::{ROWS, THREADS};
use crate::mix::mix32;
use crate::simd::{Isa, Simd, per_isa};
use crate::{Interrupt, Result, memory};

/// Rows that the mean is computed from, evenly spread: the exact mean would gain nothing.
const SAMPLE: usize = 1024;

/// How rows are moved and turned.
pub struct Frame {
    /// A power of two, the screen's.
    scale: f32,
    centre: Vec<f32>,
    signs: Vec<f32>,
}

impl Frame {
    /// One frame for both sets, from the candidates.
    pub fn new(sets: &Sets, scale: f32) -> Result<Self> {
        let points = sets.candidates();
        let every = points.len().div_ceil(SAMPLE).max(1);
        let mut sums = memory::zeroed::<f64>(points.width(), ROWS)?;
        for place in (0..points.len()).step_by(every) {
            for (sum, &x) in sums.iter_mut().zip(points.values(place as Place)) {
                *sum += f64::from(x);
            }
        }
        let count = points.len().div_ceil(every).max(1) as f64;
        let centre = sums.iter().map(|sum| (sum / count * f64::from(scale)) as f32);
        let signs = (0..points.width() as u32).map(|k| if mix32(k) & 1 == 0 { 1.0 } else { -1.0 });
        Ok(Self { scale, centre: memory::collect(centre, ROWS)?, signs: memory::collect(signs, ROWS)? })
    }
}

/// The rows of one set as codes.
pub struct Codes {
    /// Lanes of a row.
    lanes: usize,
    /// Row after row: signed numbers of 8 bits, or of 16 bits in native byte order.
    bytes: Vec<u8>,
    /// The step of each row.
    pub steps: Vec<f32>,
    /// What the bound needs of each row.
    pub terms: Vec<BoundTerms>,
}

impl Codes {
    /// Encodes rows with codes from `-levels` to `levels`.
    pub fn new(
        points: &Points,
        frame: &Frame,
        bits: Bits,
        levels: i16,
        isa: Isa,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let size = match bits {
            Bits::Eight => points.width(),
            Bits::Sixteen => 2 * points.width(),
        };
        let mut bytes = memory::zeroed::<u8>(points.len() * size, ROWS)?;
        let mut steps = memory::zeroed::<f32>(points.len(), ROWS)?;
        let mut terms = Vec::new();
        memory::resize(&mut terms, points.len(), BoundTerms::default(), ROWS)?;
        bytes.par_chunks_mut(size).zip(&mut steps).zip(&mut terms).enumerate().try_for_each_init(
            Vec::new,
            |moved, (place, ((bytes, step), terms))| {
                interrupt.check()?;
                memory::resize(moved, points.width(), 0.0, THREADS)?;
                let row = points.values(place as Place);
                (*step, *terms) = encode(isa, row, frame, bits, levels, moved, bytes);
                Ok(())
            },
        )?;
        Ok(Self { lanes: size / LANE, bytes, steps, terms })
    }

    /// Lanes of a row.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The codes of the row at a place.
    pub fn row(&self, place: Place) -> &[u8] {
        &self.bytes[place as usize * self.lanes * LANE..][..self.lanes * LANE]
    }
}

/// Codes of 16 bits have a norm of at most `2^15`, and half a unit more for each of at most `2^16` columns.
/// By Cauchy and Schwarz, neither a sum of their products nor a partial sum leaves 32 bits.
const MOST_NORM: f32 = (1 << 15) as f32;

/// A row is moved and turned in float32. Each operation rounds by at most `2^-24` of the length: one to move,
/// and in each of two passes one for each of at most 16 stages and three to shorten. Together, these 39 are
/// below `2^-18` of the length. What underflows is below `2^-130`.
const TURNED: f64 = 1.0 / (1 << 18) as f64;

#[inline(always)]
fn encode_body(
    _: impl Simd,
    row: &[f32],
    frame: &Frame,
    bits: Bits,
    levels: i16,
    moved: &mut [f32],
    bytes: &mut [u8],
) -> (f32, BoundTerms) {
    for ((to, &x), (&centre, &sign)) in moved.iter_mut().zip(row).zip(frame.centre.iter().zip(&frame.signs)) {
        *to = (x * frame.scale - centre) * sign;
    }
    turn(moved);
    let largest = moved.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let mut step = largest / f32::from(levels);
    if bits == Bits::Sixteen {
        let squares: f64 = lanes_of(moved, |x| f64::from(x).powi(2));
        step = step.max(squares.sqrt() as f32 / MOST_NORM);
    }
    // If a row is so short that its step would be subnormal, all of it is residual.
    if largest < 1e-30 {
        step = 0.0;
    }
    let per_step = if step > 0.0 { 1.0 / step } else { 0.0 };
    // No code is larger than `levels`: x / step is at most levels (1 + 2^-22) before it is rounded.
    let code = |x: f32| (x * per_step).round_ties_even();
    match bits {
        Bits::Eight => {
            for (to, &x) in bytes.iter_mut().zip(&*moved) {
                *to = (code(x) as i8).cast_unsigned();
            }
        }
        Bits::Sixteen => {
            for (to, &x) in bytes.as_chunks_mut().0.iter_mut().zip(&*moved) {
                *to = (code(x) as i16).to_ne_bytes();
            }
        }
    }
    let lost = lanes_of(moved, |x| (f64::from(x) - f64::from(step) * f64::from(code(x))).powi(2));
    let lost = lost.sqrt() * (1.0 + 2_f64.powi(-30));
    let squared_norm = f64::from(step).powi(2) * lanes_of(moved, |x| f64::from(code(x)).powi(2));
    let residual = lost + TURNED * (squared_norm.sqrt() + lost) + 2_f64.powi(-130);
    (step, BoundTerms { squared_norm, residual })
}

/// Sum of a term over a row.
#[inline(always)]
fn lanes_of(row: &[f32], term: impl Fn(f32) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    for row in row.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            lanes[lane] += term(row[lane]);
        }
    }
    lanes.iter().sum()
}

per_isa! {
    /// Writes the codes of one row. Returns their step and what the bound needs. `moved` is scratch.
    fn encode(
        row: &[f32],
        frame: &Frame,
        bits: Bits,
        levels: i16,
        moved: &mut [f32],
        bytes: &mut [u8],
    ) -> (f32, BoundTerms) => encode_body
}

/// An orthonormal transform of a row: the Hadamard transform of the longest power of two that fits, of the
/// front and then of the back.
#[inline(always)]
fn turn(row: &mut [f32]) {
    let size = 1 << row.len().ilog2();
    hadamard(&mut row[..size]);
    if size < row.len() {
        let first = row.len() - size;
        hadamard(&mut row[first..]);
    }
}

#[inline(always)]
fn hadamard(row: &mut [f32]) {
    let mut half = 1;
    while half < row.len() {
        for pair in row.chunks_exact_mut(2 * half) {
            let (first, second) = pair.split_at_mut(half);
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let shorten = 1.0 / (row.len() as f32).sqrt();
    for x in row {
        *x *= shorten;
    }
}
