//! The product of a block of anchors and a panel of candidates, in 8-bit codes. The sums are exact.
//!
//! One body for all instruction sets, written over vectors of the set's width. The instructions multiply
//! unsigned by signed bytes, so the candidates' codes are stored with an offset, and each sum starts
//! from what takes it out again.

use rayon::prelude::*;

use super::{BLOCK, COLUMNS, Coded, Estimate, Product, places};
use crate::mining::isa::{Isa, per_isa};
use crate::mining::points::{Place, Sets};
use crate::{Interrupt, Result};

mod codes;
mod kernel;

use codes::{Codes, Frame};
use kernel::{Kernel, Panel, Row};

/// Numbers that one instruction multiplies and adds into one 32-bit lane.
const QUAD: usize = 4;

/// A sum of this many products of 255 and 127 fits 32 bits.
const MOST_DIMENSIONS: usize = 1 << 16;

/// The candidates' codes in panels of [`COLUMNS`], in quads of dimensions, depth first.
pub struct Int8<'a> {
    sets: &'a Sets,
    isa: Isa,
    kernel: Kernel,
    anchors: Codes,
    /// Unless they are the anchors.
    references: Option<Codes>,
    panels: Vec<u8>,
    /// s of each candidate, zeros past the end.
    steps: Vec<f32>,
}

impl<'a> Int8<'a> {
    /// Encodes all rows and packs the candidates, unless the CPU lacks the instructions.
    pub fn new(sets: &'a Sets, scale: f32, isa: Isa, interrupt: &Interrupt) -> Result<Option<Self>> {
        let candidates = sets.candidates();
        let depth = candidates.width();
        let Some(kernel) = Kernel::choose(isa).filter(|_| depth <= MOST_DIMENSIONS) else {
            return Ok(None);
        };
        let frame = Frame::new(sets, scale);
        let encode = |points| Codes::new(points, &frame, kernel.levels(), isa, interrupt);
        let anchors = encode(&sets.anchors)?;
        let references = sets.are_two().then(|| encode(candidates)).transpose()?;
        let codes = references.as_ref().unwrap_or(&anchors);

        let mut panels = vec![0; candidates.len().div_ceil(COLUMNS) * depth * COLUMNS];
        panels.par_chunks_mut(depth * COLUMNS).enumerate().try_for_each(|(panel, to)| {
            interrupt.check()?;
            let to = to.as_chunks_mut::<QUAD>().0;
            for (column, place) in places(candidates, panel).enumerate() {
                let quads = codes.row(place).as_chunks::<QUAD>().0;
                for (quad, to) in quads.iter().zip(to[column..].iter_mut().step_by(COLUMNS)) {
                    *to = quad.map(i8::cast_unsigned);
                }
            }
            for code in to.as_flattened_mut() {
                *code = code.wrapping_add(kernel.offset());
            }
            Ok(())
        })?;
        let mut steps = codes.steps.clone();
        steps.resize(candidates.len().next_multiple_of(COLUMNS), 0.0);
        Ok(Some(Self { sets, isa, kernel, anchors, references, panels, steps }))
    }

    fn candidates(&self) -> &Codes {
        self.references.as_ref().unwrap_or(&self.anchors)
    }
}

impl Product for Int8<'_> {
    fn error(&self) -> f64 {
        3.1 * 2_f64.powi(-24)
    }

    fn anchor(&self, place: Place) -> Coded {
        self.anchors.coded(place)
    }

    fn candidate(&self, place: Place) -> Coded {
        self.candidates().coded(place)
    }

    fn is_close(&self) -> bool {
        false
    }

    fn one(&self, anchor: Place, candidate: Place) -> f32 {
        let sum = dot(self.isa, self.anchors.row(anchor), self.candidates().row(candidate));
        sum as f32 * (self.anchors.steps[anchor as usize] * self.steps[candidate as usize])
    }

    fn block<'b>(&'b self, anchors: &[Place]) -> Estimate<'b> {
        let depth = self.sets.anchors.width();
        let (quads, rows) = (depth / QUAD, self.kernel.rows());
        // Groups of `rows` anchors, in quads of dimensions, depth first.
        let mut packed = vec![[0; QUAD]; BLOCK * quads];
        let mut terms = vec![Row::default(); BLOCK];
        for (i, &place) in anchors.iter().enumerate() {
            let codes = &self.anchors.row(place)[..depth];
            let sum: i32 = codes.iter().map(|&code| i32::from(code)).sum();
            terms[i] = Row {
                start: -i32::from(self.kernel.offset()) * sum,
                step: self.anchors.steps[place as usize],
            };
            for (k, &quad) in codes.as_chunks().0.iter().enumerate() {
                packed[(i / rows * quads + k) * rows + i % rows] = quad;
            }
        }
        let groups = anchors.len().div_ceil(rows);
        Box::new(move |panel, squared_norms, estimates| {
            let codes = self.panels[panel * depth * COLUMNS..][..depth * COLUMNS].as_chunks().0;
            let steps = self.steps[panel * COLUMNS..].first_chunk().expect("a step for each column");
            for group in 0..groups {
                let anchors = &packed[group * quads * rows..][..quads * rows];
                let rows = group * rows..(group + 1) * rows;
                let candidates = Panel { codes, steps, squared_norms };
                self.kernel.estimate(anchors, &terms[rows.clone()], candidates, &mut estimates[rows]);
            }
        })
    }
}

#[inline(always)]
fn dot_body(x: &[i8], y: &[i8]) -> i32 {
    x.iter().zip(y).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
}

per_isa! {
    /// The product of two rows of codes.
    fn dot(x: &[i8], y: &[i8]) -> i32 => dot_body
}
