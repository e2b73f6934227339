//! The product of a block of anchors and a panel of candidates, in codes of 8 or 16 bits. The sums are exact.
//!
//! The instructions multiply unsigned bytes by signed ones. So the candidates' codes of 8 bits are stored
//! with an offset, and each sum starts from the number that takes the offset out again.

use rayon::prelude::*;

use super::{BLOCK, BoundTerms, COLUMNS, EstimatePanel, Product, places};
use crate::mining::points::{Place, Sets};
use crate::mining::shortage::{ROWS, THREADS};
use crate::simd::{Isa, Simd, per_isa};
use crate::{Interrupt, Result, memory};

mod codes;
mod kernel;

use codes::{Codes, Frame};
use kernel::{AnchorTerms, Kernel, LANE, PanelCodes};

/// Bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Fast: a half or a third of the time of 16 bits.
    Eight,
    /// Close: with 512 columns, the bound is 40 to 90 times as close as with 8 bits.
    Sixteen,
}

/// Products of 255 and 127 whose sum still fits 32 bits.
const MOST_COLUMNS: usize = 1 << 16;

/// The codes of all rows. Those of the candidates are packed in panels: the first lane of each candidate,
/// then the second lane of each, and so on.
pub struct Integer {
    isa: Isa,
    bits: Bits,
    kernel: Kernel,
    anchors: Codes,
    /// None: the candidates are the anchors.
    references: Option<Codes>,
    panels: Vec<u8>,
    /// The step of each candidate's codes, zeros after the last one.
    steps: Vec<f32>,
}

impl Integer {
    /// Encodes all rows and packs the candidates. `None` if the CPU lacks the instructions, or if there are
    /// too many columns.
    pub fn new(sets: &Sets, bits: Bits, scale: f32, isa: Isa, interrupt: &Interrupt) -> Result<Option<Self>> {
        let candidates = sets.candidates();
        let Some(kernel) = Kernel::choose(isa, bits).filter(|_| candidates.width() <= MOST_COLUMNS) else {
            return Ok(None);
        };
        let frame = Frame::new(sets, scale)?;
        let encode = |points| Codes::new(points, &frame, bits, kernel.levels(), isa, interrupt);
        let anchors = encode(&sets.anchors)?;
        let references = (!sets.are_one()).then(|| encode(candidates)).transpose()?;
        let codes = references.as_ref().unwrap_or(&anchors);

        let panel_size = codes.lanes() * LANE * COLUMNS;
        let mut panels = memory::zeroed::<u8>(candidates.len().div_ceil(COLUMNS) * panel_size, ROWS)?;
        panels.par_chunks_mut(panel_size).enumerate().try_for_each(|(panel, to)| {
            interrupt.check()?;
            for (column, place) in places(candidates, panel).enumerate() {
                let to = to.as_chunks_mut::<LANE>().0[column..].iter_mut().step_by(COLUMNS);
                for (to, &lane) in to.zip(codes.row(place).as_chunks::<LANE>().0) {
                    *to = lane;
                }
            }
            for code in to {
                *code = code.wrapping_add(kernel.offset());
            }
            Ok(())
        })?;
        let mut steps = memory::zeroed::<f32>(candidates.len().next_multiple_of(COLUMNS), ROWS)?;
        steps[..candidates.len()].copy_from_slice(&codes.steps);
        Ok(Some(Self { isa, bits, kernel, anchors, references, panels, steps }))
    }

    fn candidate_codes(&self) -> &Codes {
        self.references.as_ref().unwrap_or(&self.anchors)
    }
}

impl Product for Integer {
    fn error(&self) -> f64 {
        3.1 * 2_f64.powi(-24)
    }

    fn anchors(&self) -> &[BoundTerms] {
        &self.anchors.terms
    }

    fn candidates(&self) -> &[BoundTerms] {
        &self.candidate_codes().terms
    }

    fn one(&self, anchor: Place, candidate: Place) -> f32 {
        let (x, y) = (self.anchors.row(anchor), self.candidate_codes().row(candidate));
        let sum = match self.bits {
            Bits::Eight => dot_bytes(self.isa, x, y),
            Bits::Sixteen => dot_words(self.isa, x, y),
        };
        sum as f32 * (self.anchors.steps[anchor as usize] * self.steps[candidate as usize])
    }

    fn block<'b>(&'b self, anchors: &[Place]) -> Result<EstimatePanel<'b>> {
        let (lanes, tile) = (self.anchors.lanes(), self.kernel.tile_anchors());
        // In groups, one for each tile, that are packed as the panels are.
        let mut packed = memory::zeroed::<[u8; LANE]>(BLOCK * lanes, THREADS)?;
        let mut terms = [AnchorTerms::default(); BLOCK];
        for (i, &place) in anchors.iter().enumerate() {
            let codes = self.anchors.row(place);
            let sum: i32 = codes.iter().map(|&code| i32::from(code.cast_signed())).sum();
            terms[i] = AnchorTerms {
                start: -i32::from(self.kernel.offset()) * sum,
                step: self.anchors.steps[place as usize],
            };
            for (k, &lane) in codes.as_chunks().0.iter().enumerate() {
                packed[(i / tile * lanes + k) * tile + i % tile] = lane;
            }
        }
        let groups = anchors.len().div_ceil(tile);
        let panel_size = lanes * LANE * COLUMNS;
        Ok(Box::new(move |panel, squared_norms, estimates| {
            let codes = self.panels[panel * panel_size..][..panel_size].as_chunks().0;
            let steps = self.steps[panel * COLUMNS..].first_chunk().expect("a step for each column");
            for group in 0..groups {
                let anchors = &packed[group * lanes * tile..][..lanes * tile];
                let members = group * tile..(group + 1) * tile;
                let candidates = PanelCodes { codes, steps, squared_norms };
                self.kernel.estimate(anchors, &terms[members.clone()], candidates, &mut estimates[members]);
            }
        }))
    }
}

#[inline(always)]
fn dot_bytes_body(_: impl Simd, x: &[u8], y: &[u8]) -> i32 {
    x.iter().zip(y).map(|(&x, &y)| i32::from(x.cast_signed()) * i32::from(y.cast_signed())).sum()
}

#[inline(always)]
fn dot_words_body(_: impl Simd, x: &[u8], y: &[u8]) -> i32 {
    let (x, y) = (x.as_chunks().0, y.as_chunks().0);
    x.iter().zip(y).map(|(&x, &y)| i32::from(i16::from_ne_bytes(x)) * i32::from(i16::from_ne_bytes(y))).sum()
}

per_isa! {
    /// The product of two rows of codes of 8 bits.
    fn dot_bytes(x: &[u8], y: &[u8]) -> i32 => dot_bytes_body
}

per_isa! {
    /// The product of two rows of codes of 16 bits.
    fn dot_words(x: &[u8], y: &[u8]) -> i32 => dot_words_body
}
