//! The product of a block of anchors and a panel of candidates, in 8-bit integers: four times the
//! multiplications of float32 an instruction, for a bound that is some hundred times wider.
//!
//! A row `x` becomes `s q + r`: a scale, codes from -127 to 127, and a residual of which only the
//! length is kept. The integer sums are exact.

use std::arch::x86_64::{
    __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};

use rayon::prelude::*;

use super::super::isa::{Isa, Kind};
use super::super::points::{Place, Points};
use super::{BLOCK, COLUMNS, Multiply, Product, places};
use crate::{Interrupt, Result};

/// Anchors in the register tile: 12 x 2 vectors of sums, 2 of candidates, 1 anchor.
const ROWS: usize = 12;

/// Numbers that one instruction multiplies and adds into one 32-bit lane.
const QUAD: usize = 4;

/// Added to the candidates' codes: the instruction multiplies unsigned by signed bytes.
const OFFSET: i32 = 128;

/// A sum of this many products of 255 and 127 fits 32 bits.
const MOST_DIMENSIONS: usize = 1 << 16;

/// Of the longest residual to its row. Gaussian rows have 0.01; beyond this the bound is so wide
/// that float32 is faster in all.
const MOST_RESIDUAL: f32 = 0.03;

/// The scaled rows as codes in panels of [`COLUMNS`], in quads of dimensions, depth first.
pub struct Int8<'a> {
    points: &'a Points,
    scale: f32,
    panels: Vec<u8>,
    /// s of each row, zeros past the end.
    scales: Vec<f32>,
    /// Lengths of `r`.
    residuals: Vec<f64>,
}

impl<'a> Int8<'a> {
    /// Packs the rows, unless the CPU lacks the instruction or codes of 8 bits fit the rows badly.
    pub fn new(points: &'a Points, scale: f32, isa: Isa, interrupt: &Interrupt) -> Result<Option<Self>> {
        let depth = points.width();
        if isa.0 != Kind::Avx512Vnni || depth > MOST_DIMENSIONS {
            return Ok(None);
        }
        let panel_count = points.len().div_ceil(COLUMNS);
        let mut panels = vec![0; panel_count * depth * COLUMNS];
        let mut scales = vec![0.0; panel_count * COLUMNS];
        let mut residuals = vec![0.0; panel_count * COLUMNS];
        panels
            .par_chunks_mut((depth * COLUMNS).max(1))
            .zip(scales.par_chunks_mut(COLUMNS))
            .zip(residuals.par_chunks_mut(COLUMNS))
            .enumerate()
            .try_for_each(|(panel, ((to, scales), residuals))| {
                interrupt.check()?;
                for (column, place) in places(points, panel).enumerate() {
                    let codes = Quantised::of(points.values(place), scale);
                    scales[column] = codes.step;
                    residuals[column] = codes.residual(points.squared_norms[place as usize]);
                    for (k, code) in codes.iter().enumerate() {
                        to[(k / QUAD * COLUMNS + column) * QUAD + k % QUAD] =
                            (i32::from(code) + OFFSET) as u8;
                    }
                }
                Ok(())
            })?;
        let fits = points
            .squared_norms
            .iter()
            .zip(&residuals)
            .all(|(norm, residual)| *residual <= norm.sqrt() * f64::from(scale * MOST_RESIDUAL));
        Ok(fits.then_some(Self { points, scale, panels, scales, residuals }))
    }
}

impl Product for Int8<'_> {
    fn error(&self) -> f64 {
        2_f64.powi(-20)
    }

    fn residual(&self, place: Place) -> f64 {
        self.residuals[place as usize]
    }

    fn block<'b>(&'b self, anchors: &[Place]) -> Multiply<'b> {
        let depth = self.points.width();
        let quads = depth / QUAD;
        // Groups of `ROWS` anchors, in quads of dimensions, depth first.
        let mut packed = vec![[[0_i8; QUAD]; ROWS]; BLOCK / ROWS * quads];
        let mut rows = vec![Row::default(); BLOCK];
        for (i, &place) in anchors.iter().enumerate() {
            let codes = Quantised::of(self.points.values(place), self.scale);
            rows[i].step = codes.step;
            for (k, code) in codes.iter().enumerate() {
                packed[i / ROWS * quads + k / QUAD][i % ROWS][k % QUAD] = code;
                rows[i].start -= OFFSET * i32::from(code);
            }
        }
        let groups = anchors.len().div_ceil(ROWS);
        Box::new(move |panel, products| {
            let codes = self.panels[panel * depth * COLUMNS..][..depth * COLUMNS].as_chunks().0;
            let scales = self.scales[panel * COLUMNS..].first_chunk().expect("a scale for each column");
            let products = products.as_chunks_mut::<ROWS>().0;
            let rows = rows.as_chunks::<ROWS>().0;
            for ((group, rows), products) in rows[..groups].iter().enumerate().zip(products) {
                let anchors = &packed[group * quads..][..quads];
                // SAFETY: the CPU has the instructions: `new` made `self` only for an `Isa` that
                // exists only where they were seen.
                unsafe { multiply(anchors, codes, rows, scales, products) }
            }
        })
    }
}

/// What an anchor's sums need before and after the multiplications.
#[derive(Clone, Copy, Default)]
struct Row {
    /// What each sum starts from: it takes the candidates' offset out again.
    start: i32,
    /// s.
    step: f32,
}

/// The codes of one scaled row.
struct Quantised<'a> {
    values: &'a [f32],
    scale: f64,
    step: f32,
}

impl<'a> Quantised<'a> {
    fn of(values: &'a [f32], scale: f32) -> Self {
        let largest = values.iter().fold(0.0_f32, |a, b| a.max(b.abs())) * scale;
        // A row so short that its step would be subnormal is all residual.
        let step = if largest > 1e-30 { largest / 127.0 } else { 0.0 };
        Self { values, scale: f64::from(scale), step }
    }

    fn iter(&self) -> impl Iterator<Item = i8> {
        let per_step = if self.step > 0.0 { self.scale / f64::from(self.step) } else { 0.0 };
        self.values.iter().map(move |&x| (f64::from(x) * per_step).round() as i8)
    }

    /// Length of what the codes leave out, with what its own evaluation may leave out.
    fn residual(&self, squared_norm: f64) -> f64 {
        let step = f64::from(self.step);
        let squares: f64 = (self.values.iter().zip(self.iter()))
            .map(|(&x, code)| (f64::from(x) * self.scale - step * f64::from(code)).powi(2))
            .sum();
        squares.sqrt() + squared_norm.sqrt() * self.scale * 2_f64.powi(-40)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn multiply(
    anchors: &[[[i8; QUAD]; ROWS]],
    panel: &[[u8; QUAD * COLUMNS]],
    rows: &[Row; ROWS],
    scales: &[f32; COLUMNS],
    products: &mut [[f32; COLUMNS]; ROWS],
) {
    let half = |panel: &[u8; QUAD * COLUMNS], half: usize| -> __m512i {
        let half = &panel[half * 64..][..64];
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_loadu_si512(half.as_ptr().cast()) }
    };
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    for r in 0..ROWS {
        sums[r] = [_mm512_set1_epi32(rows[r].start); 2];
    }
    for (anchors, panel) in anchors.iter().zip(panel) {
        let candidates = [half(panel, 0), half(panel, 1)];
        for r in 0..ROWS {
            let anchor = _mm512_set1_epi32(i32::from_ne_bytes(anchors[r].map(i8::cast_unsigned)));
            sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], candidates[0], anchor);
            sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], candidates[1], anchor);
        }
    }
    for r in 0..ROWS {
        for (h, &sum) in sums[r].iter().enumerate() {
            let (scales, products) = (&scales[h * 16..][..16], &mut products[r][h * 16..][..16]);
            // SAFETY: 16 lanes are there.
            let scales = unsafe { _mm512_loadu_ps(scales.as_ptr()) };
            let scale = _mm512_mul_ps(_mm512_set1_ps(rows[r].step), scales);
            // SAFETY: 16 lanes are there.
            unsafe { _mm512_storeu_ps(products.as_mut_ptr(), _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale)) }
        }
    }
}
