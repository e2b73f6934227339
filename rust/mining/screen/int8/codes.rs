//! Rows in 8 bits: `x` becomes `X = s q`, a step and whole numbers, and the length of what that loses.
//!
//! Before, all rows are moved and turned together, which changes no distance between them:
//!
//! * moved by their mean, because what the codes lose is in proportion to a row's length: of a network
//!   whose embeddings have all but collapsed, only what tells them apart is left;
//! * turned by a Hadamard transform with random signs, after which no column stands out: the largest of D
//!   columns is about `sqrt(2 ln 2D / D)` of the length, whatever the row was, and so the codes fit.

use rayon::prelude::*;

use super::super::Coded;
use crate::mining::exact::LANES;
use crate::mining::hash::mix32;
use crate::mining::isa::{Isa, per_isa};
use crate::mining::points::{Place, Points, Sets};
use crate::{Interrupt, Result};

/// Rows that the mean is taken of, evenly spread: the exact mean is worth no more.
const SAMPLE: usize = 1024;

/// How rows are moved and turned.
pub struct Frame {
    /// A power of two: after it the longest row has a norm in `[1/2, 1)`.
    scale: f32,
    centre: Vec<f32>,
    signs: Vec<f32>,
}

impl Frame {
    /// For both sets.
    pub fn new(sets: &Sets, scale: f32) -> Self {
        let points = sets.candidates();
        let every = points.len().div_ceil(SAMPLE).max(1);
        let mut sums = vec![0.0; points.width()];
        for place in (0..points.len()).step_by(every) {
            for (sum, &x) in sums.iter_mut().zip(points.values(place as Place)) {
                *sum += f64::from(x);
            }
        }
        let count = points.len().div_ceil(every).max(1) as f64;
        Self {
            scale,
            centre: sums.iter().map(|sum| (sum / count * f64::from(scale)) as f32).collect(),
            signs: (0..points.width() as u32).map(|k| if mix32(k) & 1 == 0 { 1.0 } else { -1.0 }).collect(),
        }
    }
}

/// The rows of one set as codes.
pub struct Codes {
    /// Of a row, padding included: a multiple of [`ALIGN`].
    width: usize,
    codes: Vec<i8>,
    /// s.
    pub steps: Vec<f32>,
    coded: Vec<Coded>,
}

/// Codes of a row are padded to a multiple of this, one vector of the widest instruction set.
const ALIGN: usize = 64;

impl Codes {
    /// Codes from `-levels` to `levels`.
    pub fn new(points: &Points, frame: &Frame, levels: i8, isa: Isa, interrupt: &Interrupt) -> Result<Self> {
        let width = points.width().next_multiple_of(ALIGN);
        let mut codes = vec![0; points.len() * width];
        let mut steps = vec![0.0; points.len()];
        let mut coded = vec![Coded::default(); points.len()];
        codes.par_chunks_mut(width).zip(&mut steps).zip(&mut coded).enumerate().try_for_each_init(
            || vec![0.0; points.width()],
            |moved, (place, ((codes, step), coded))| {
                interrupt.check()?;
                let codes = &mut codes[..points.width()];
                (*step, *coded) = encode(isa, points.values(place as Place), frame, levels, moved, codes);
                Ok(())
            },
        )?;
        Ok(Self { width, codes, steps, coded })
    }

    /// The codes of the row at a place, padded with zeros.
    pub fn row(&self, place: Place) -> &[i8] {
        &self.codes[place as usize * self.width..][..self.width]
    }

    /// What the bound needs of the row at a place.
    pub fn coded(&self, place: Place) -> Coded {
        self.coded[place as usize]
    }
}

/// `|Tx|` is turned into codes with every float32 operation on the way rounding by at most `2^-24` of the
/// length: one to move, one a stage and two a pass of the transform, of which there are at most
/// 2 (16 + 2). Together that is below `2^-18` of the length. What underflows is below `2^-130`.
const TURNED: f64 = 1.0 / (1 << 18) as f64;

#[inline(always)]
fn encode_body(row: &[f32], frame: &Frame, levels: i8, moved: &mut [f32], codes: &mut [i8]) -> (f32, Coded) {
    for ((to, &x), (&centre, &sign)) in moved.iter_mut().zip(row).zip(frame.centre.iter().zip(&frame.signs)) {
        *to = (x * frame.scale - centre) * sign;
    }
    turn(moved);
    let largest = moved.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    // A row so short that its step would be subnormal is all residual.
    let step = if largest > 1e-30 { largest / f32::from(levels) } else { 0.0 };
    let per_step = if step > 0.0 { 1.0 / step } else { 0.0 };
    let mut squares = 0_i32; // at most 127^2 2^16
    for (code, &x) in codes.iter_mut().zip(&*moved) {
        // Rounding cannot lead past `levels`: x / step is at most levels (1 + 2^-22).
        *code = (x * per_step).round_ties_even() as i8;
        squares += i32::from(*code) * i32::from(*code);
    }
    let mut lanes = [0.0; LANES];
    for (moved, codes) in moved.as_chunks::<LANES>().0.iter().zip(codes.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            let lost = f64::from(moved[lane]) - f64::from(step) * f64::from(codes[lane]);
            lanes[lane] += lost * lost;
        }
    }
    let squared_norm = f64::from(step).powi(2) * f64::from(squares);
    let lost = lanes.iter().sum::<f64>().sqrt() * (1.0 + 2_f64.powi(-30));
    let residual = lost + TURNED * (squared_norm.sqrt() + lost) + 2_f64.powi(-130);
    (step, Coded { squared_norm, residual })
}

per_isa! {
    /// Codes of one row: their step, and what the bound needs. `moved` is scratch.
    fn encode(row: &[f32], frame: &Frame, levels: i8, moved: &mut [f32], codes: &mut [i8]) -> (f32, Coded) => encode_body
}

/// An orthonormal transform of a row: Hadamard's, of the longest power of two that fits, at the front
/// and then at the back.
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
