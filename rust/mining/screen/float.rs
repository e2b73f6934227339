//! The product of a block of anchors and a panel of candidates in float32: the portable path, and the path
//! for more columns than [`integer`](super::integer) can sum.

use rayon::prelude::*;

use super::super::points::{Place, Points, Sets};
use super::{BLOCK, BoundTerms, COLUMNS, EstimatePanel, Product, places};
use crate::mining::shortage::{ROWS, THREADS};
use crate::{Interrupt, Result, memory};

/// Columns that are multiplied before the sums go back to memory: a slice of a panel then has 16 KiB and
/// stays in L1 while all anchors of the block pass over it.
const DEPTH: usize = 128;

/// Anchors in the register tile: with two vectors of candidates, as many as fit 16 registers of 4 lanes,
/// those of SSE2 or NEON.
const TILE: usize = 4;

/// Lanes of a vector.
const LANES: usize = 4;

/// The scaled rows. The candidates are packed in panels: the first column of each candidate, then the second,
/// and so on. Zeros after the last candidate.
pub struct Float<'a> {
    sets: &'a Sets,
    scale: f32,
    anchors: Vec<BoundTerms>,
    /// None: the candidates are the anchors.
    references: Option<Vec<BoundTerms>>,
    panels: Vec<f32>,
}

impl<'a> Float<'a> {
    /// Packs the candidates.
    pub fn new(sets: &'a Sets, scale: f32, interrupt: &Interrupt) -> Result<Self> {
        let candidates = sets.candidates();
        let depth = candidates.width();
        let mut panels = memory::zeroed::<f32>(candidates.len().div_ceil(COLUMNS) * depth * COLUMNS, ROWS)?;
        panels.par_chunks_mut(depth * COLUMNS).enumerate().try_for_each(|(panel, to)| {
            interrupt.check()?;
            for (column, place) in places(candidates, panel).enumerate() {
                for (k, &x) in candidates.values(place).iter().enumerate() {
                    to[k * COLUMNS + column] = x * scale;
                }
            }
            Ok(())
        })?;
        let terms_of = |points: &Points| {
            let terms = |norm| BoundTerms { squared_norm: norm * f64::from(scale).powi(2), residual: 0.0 };
            memory::collect(points.squared_norms.iter().copied().map(terms), ROWS)
        };
        let references = (!sets.are_one()).then(|| terms_of(candidates)).transpose()?;
        Ok(Self { sets, scale, anchors: terms_of(&sets.anchors)?, references, panels })
    }

    /// The anchors in groups of [`TILE`], packed as the panels are.
    fn pack(&self, anchors: &[Place]) -> Result<Vec<f32>> {
        let points = &self.sets.anchors;
        let depth = points.width();
        let mut packed = memory::zeroed::<f32>(BLOCK * depth, THREADS)?;
        for (i, &place) in anchors.iter().enumerate() {
            let (group, member) = (i / TILE, i % TILE);
            for (k, &x) in points.values(place).iter().enumerate() {
                packed[(group * depth + k) * TILE + member] = x * self.scale;
            }
        }
        Ok(packed)
    }
}

impl Product for Float<'_> {
    fn error(&self) -> f64 {
        let roundings = self.sets.anchors.width() as f64 * 2_f64.powi(-24);
        roundings / (1.0 - roundings)
    }

    fn anchors(&self) -> &[BoundTerms] {
        &self.anchors
    }

    fn candidates(&self) -> &[BoundTerms] {
        self.references.as_ref().unwrap_or(&self.anchors)
    }

    fn one(&self, anchor: Place, candidate: Place) -> f32 {
        let (x, y) = (self.sets.anchors.values(anchor), self.sets.candidates().values(candidate));
        let mut lanes = [0.0; 2 * LANES];
        for (x, y) in x.as_chunks::<{ 2 * LANES }>().0.iter().zip(y.as_chunks::<{ 2 * LANES }>().0) {
            for lane in 0..2 * LANES {
                lanes[lane] += (x[lane] * self.scale) * (y[lane] * self.scale);
            }
        }
        lanes.iter().sum()
    }

    fn block<'b>(&'b self, anchors: &[Place]) -> Result<EstimatePanel<'b>> {
        let depth = self.sets.anchors.width();
        let packed = self.pack(anchors)?;
        let groups = anchors.len().div_ceil(TILE);
        Ok(Box::new(move |panel, squared_norms, estimates| {
            let products = &mut estimates[..groups * TILE];
            products.fill([0.0; COLUMNS]);
            let panel = &self.panels[panel * depth * COLUMNS..][..depth * COLUMNS];
            for (slice, panel) in panel.chunks(DEPTH * COLUMNS).enumerate() {
                for (group, products) in products.as_chunks_mut().0.iter_mut().enumerate() {
                    let first = (group * depth + slice * DEPTH) * TILE;
                    add_products(&packed[first..][..panel.len() / COLUMNS * TILE], panel, products);
                }
            }
            for products in products {
                for (product, squared_norm) in products.iter_mut().zip(squared_norms) {
                    *product = squared_norm - 2.0 * *product;
                }
            }
        }))
    }
}

/// Adds the products of [`TILE`] anchors and one slice of a panel to the sums.
fn add_products(anchors: &[f32], panel: &[f32], sums: &mut [[f32; COLUMNS]; TILE]) {
    for first in (0..COLUMNS).step_by(2 * LANES) {
        let mut tile = [[0.0; 2 * LANES]; TILE];
        for r in 0..TILE {
            tile[r].copy_from_slice(&sums[r][first..][..2 * LANES]);
        }
        for (anchors, panel) in anchors.as_chunks::<TILE>().0.iter().zip(panel.as_chunks::<COLUMNS>().0) {
            let candidates: &[f32; 2 * LANES] = panel[first..].first_chunk().expect("two vectors");
            for r in 0..TILE {
                for lane in 0..2 * LANES {
                    tile[r][lane] += anchors[r] * candidates[lane];
                }
            }
        }
        for r in 0..TILE {
            sums[r][first..][..2 * LANES].copy_from_slice(&tile[r]);
        }
    }
}
