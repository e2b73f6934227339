//! Products that serve both of their rows, where the candidates are the anchors.
//!
//! An estimate is compared with the window of either row: as a [`mark`](super::mark) is, for the anchor, and with
//! edges of their own for the candidates of a panel. Only the few rows that pass are kept. That pays where nearly
//! all anchors are looked at, and few rows are in their windows.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::mark::Edges;
use super::{BLOCK, COLUMNS, EstimatePanel, LOWER, Panel, RAISE, Screen, UNDERFLOW, Window};
use crate::mining::points::Place;
use crate::mining::shortage::{ROWS, THREADS};
use crate::simd::{Simd, per_isa};
use crate::{Interrupt, Result, memory};

/// Blocks of anchors that share one pass over the panels: their codes stay in L2 beside a panel's.
const BLOCKS: usize = 8;

/// For each anchor the candidates that may be in its window.
pub struct Near {
    first: Place,
    /// How many each anchor has, also those that were too many to be kept.
    counts: Vec<AtomicU32>,
    most: u32,
    /// Where the candidates of each anchor begin, and their number at the end.
    starts: Vec<usize>,
    places: Vec<Place>,
}

impl Near {
    /// The candidates that may be in the window of an anchor; None if there are too many.
    pub fn of(&self, anchor: Place) -> Option<&[Place]> {
        let at = (anchor - self.first) as usize;
        let few = self.counts[at].load(Ordering::Relaxed) <= self.most;
        few.then(|| &self.places[self.starts[at]..self.starts[at + 1]])
    }
}

/// A candidate of a panel that may be in an anchor's window.
type Pass = (Place, Place);

/// The windows of the candidates of a panel, when these are anchors.
struct Columns {
    above: [f32; COLUMNS],
    below: [f32; COLUMNS],
    squared_norms: [f32; COLUMNS],
    residuals: [f32; COLUMNS],
}

/// Consecutive anchors that are multiplied together.
struct Rows<'a> {
    anchors: Range<Place>,
    estimate: EstimatePanel<'a>,
    /// Of each anchor.
    edges: Vec<Edges>,
    squared_norms: [f32; BLOCK],
    /// The largest of the block.
    squared_norm: f32,
    residual: f32,
}

impl Screen<'_> {
    /// Looks for the candidates that may be in the window of each of some consecutive anchors. Candidates of which
    /// `skip` says that they are of the same identity are left out. At most `most` are kept of an anchor.
    pub fn sieve(
        &self,
        anchors: Range<Place>,
        windows: &[Window],
        most: usize,
        skip: impl Fn(Place, Place) -> bool + Sync,
        interrupt: &Interrupt,
    ) -> Result<Near> {
        let most = most as u32;
        let mut counts = Vec::new();
        memory::reserve(&mut counts, windows.len(), ROWS)?;
        counts.extend(windows.iter().map(|_| AtomicU32::new(0)));
        let columns = memory::collect(
            (anchors.start as usize / COLUMNS..(anchors.end as usize).div_ceil(COLUMNS))
                .map(|panel| self.columns(panel, &anchors, windows)),
            ROWS,
        )?;
        let share = windows.len().div_ceil(BLOCK * 8 * rayon::current_num_threads()).clamp(1, BLOCKS);
        let firsts = memory::collect(anchors.clone().step_by(share * BLOCK), ROWS)?;
        let keep = |passes: &mut Vec<Pass>, anchor: Place, candidate: Place| {
            if skip(anchor, candidate) {
                return Ok(());
            }
            let count = counts[(anchor - anchors.start) as usize].fetch_add(1, Ordering::Relaxed);
            if count < most { memory::push(passes, (anchor, candidate), THREADS) } else { Ok(()) }
        };
        let passes = firsts
            .par_iter()
            .map(|&first| {
                let end = anchors.end.min(first + (share * BLOCK) as Place);
                let blocks = (first..end).step_by(BLOCK).map(|from| {
                    self.rows(
                        from..end.min(from + BLOCK as Place),
                        &windows[(from - anchors.start) as usize..],
                    )
                });
                let mut passes = Vec::new();
                let mut estimates = [[0.0; COLUMNS]; BLOCK];
                let blocks = blocks.collect::<Result<Vec<_>>>()?;
                for panel in 0..self.panels.len() {
                    interrupt.check()?;
                    let places = (panel * COLUMNS) as Place..((panel + 1) * COLUMNS) as Place;
                    // Those before the block are its candidates where they are the anchors of an earlier one.
                    if places.start >= anchors.start && places.end <= first {
                        continue;
                    }
                    let columns = (places.end > anchors.start && places.start < anchors.end)
                        .then(|| &columns[panel - anchors.start as usize / COLUMNS]);
                    for rows in &blocks {
                        self.pass(rows, panel, columns, &anchors, &mut estimates, |anchor, candidate| {
                            keep(&mut passes, anchor, candidate)
                        })?;
                    }
                }
                Ok(passes)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut near = Near { first: anchors.start, counts, most, starts: Vec::new(), places: Vec::new() };
        near.fill(&passes)?;
        Ok(near)
    }

    /// Compares the estimates of a block and a panel with the windows of both.
    fn pass(
        &self,
        rows: &Rows<'_>,
        panel: usize,
        columns: Option<&Columns>,
        anchors: &Range<Place>,
        estimates: &mut [[f32; COLUMNS]; BLOCK],
        mut keep: impl FnMut(Place, Place) -> Result<()>,
    ) -> Result<()> {
        let first = (panel * COLUMNS) as Place;
        if first >= anchors.start && first + COLUMNS as Place <= rows.anchors.start {
            return Ok(());
        }
        let of_panel = &self.panels[panel];
        (rows.estimate)(panel, &of_panel.squared_norms, estimates);
        let mut marks = [[0; 2]; BLOCK];
        if !pass_both(self.isa, estimates, of_panel, rows, columns, self.error as f32, &mut marks) {
            return Ok(());
        }
        for (anchor, [of_row, of_column]) in rows.anchors.clone().zip(marks) {
            let mut any = of_row | of_column;
            while any != 0 {
                let lane = any.trailing_zeros();
                any &= any - 1;
                let candidate = first + lane;
                if anchors.contains(&candidate) && candidate <= anchor {
                    continue; // which meets the anchor as a candidate of its own
                }
                if of_row >> lane & 1 == 1 {
                    keep(anchor, candidate)?;
                }
                if of_column >> lane & 1 == 1 {
                    keep(candidate, anchor)?;
                }
            }
        }
        Ok(())
    }

    fn columns(&self, panel: usize, anchors: &Range<Place>, windows: &[Window]) -> Columns {
        let mut columns = Columns {
            above: [f32::INFINITY; COLUMNS],
            below: [0.0; COLUMNS],
            squared_norms: [0.0; COLUMNS],
            residuals: [0.0; COLUMNS],
        };
        for (column, place) in (panel * COLUMNS..(panel + 1) * COLUMNS).enumerate() {
            if anchors.contains(&(place as Place)) {
                let edges = self.edges_of(place as Place, windows[place - anchors.start as usize]);
                columns.above[column] = edges.above;
                columns.below[column] = edges.below;
                columns.squared_norms[column] = edges.squared_norm;
                columns.residuals[column] = edges.residual;
            }
        }
        columns
    }

    fn edges_of(&self, anchor: Place, window: Window) -> Edges {
        self.edges(window, self.product.anchors()[anchor as usize])
    }

    fn rows(&self, anchors: Range<Place>, windows: &[Window]) -> Result<Rows<'_>> {
        let places = memory::collect(anchors.clone(), THREADS)?;
        let edges = anchors.clone().zip(windows).map(|(anchor, &window)| self.edges_of(anchor, window));
        let edges = memory::collect(edges, THREADS)?;
        let mut squared_norms = [0.0; BLOCK];
        for (to, edges) in squared_norms.iter_mut().zip(&edges) {
            *to = edges.squared_norm;
        }
        Ok(Rows {
            squared_norm: squared_norms.iter().fold(0.0_f32, |a, &b| a.max(b)) * RAISE as f32,
            residual: edges.iter().fold(0.0_f32, |a, edges| a.max(edges.residual)),
            squared_norms,
            estimate: self.product.block(&places)?,
            edges,
            anchors,
        })
    }
}

impl Near {
    /// Sorts what passed by anchor and candidate.
    fn fill(&mut self, passes: &[Vec<Pass>]) -> Result<()> {
        memory::reserve(&mut self.starts, self.counts.len() + 1, ROWS)?;
        let mut end = 0;
        for count in &self.counts {
            self.starts.push(end);
            end += count.load(Ordering::Relaxed).min(self.most) as usize;
        }
        self.starts.push(end);
        memory::resize(&mut self.places, end, 0, ROWS)?;
        let mut next = memory::collect(self.starts.iter().copied(), ROWS)?;
        for &(anchor, candidate) in passes.iter().flatten() {
            let at = &mut next[(anchor - self.first) as usize];
            self.places[*at] = candidate;
            *at += 1;
        }
        for range in self.starts.windows(2) {
            self.places[range[0]..range[1]].sort_unstable();
        }
        Ok(())
    }
}

per_isa! {
    /// For each anchor of the block, marks the candidates of a panel that may be in its window, and those in whose
    /// windows it may be. Returns whether there is any.
    fn pass_both(
        estimates: &[[f32; COLUMNS]; BLOCK],
        panel: &Panel,
        rows: &Rows<'_>,
        columns: Option<&Columns>,
        error: f32,
        marks: &mut [[u32; 2]; BLOCK],
    ) -> bool => pass_both_body
}

#[inline(always)]
fn pass_both_body<S: Simd>(
    simd: S,
    estimates: &[[f32; COLUMNS]; BLOCK],
    panel: &Panel,
    rows: &Rows<'_>,
    columns: Option<&Columns>,
    error: f32,
    marks: &mut [[u32; 2]; BLOCK],
) -> bool {
    let mut any = 0;
    for ((estimates, edges), marks) in estimates.iter().zip(&rows.edges).zip(&mut *marks) {
        let (low, high) = edges.of_panel(panel);
        for first in (0..COLUMNS).step_by(S::F32_LANES) {
            marks[0] |= simd.between_f32(&estimates[first..], low, high) << first;
        }
        any |= marks[0];
    }
    let Some(columns) = columns else { return any != 0 };
    // The edges of each candidate's window around it, compared with the squared distance of any of the block.
    let (mut low, mut high) = ([0.0; COLUMNS], [0.0; COLUMNS]);
    for column in 0..COLUMNS {
        let residual = columns.residuals[column] + rows.residual;
        let offset = error * (columns.squared_norms[column] + rows.squared_norm) + UNDERFLOW as f32;
        let nearest = columns.above[column] - residual;
        let nearest = if nearest > 0.0 { nearest } else { 0.0 };
        let farthest = columns.below[column] + residual;
        low[column] = nearest * nearest * LOWER as f32 - offset;
        high[column] = farthest * farthest * RAISE as f32 + offset;
    }
    for ((estimates, &squared_norm), marks) in
        estimates.iter().zip(&rows.squared_norms).zip(&mut *marks).take(rows.edges.len())
    {
        for first in (0..COLUMNS).step_by(S::F32_LANES) {
            marks[1] |=
                simd.sums_between_f32(&estimates[first..], squared_norm, &low[first..], &high[first..])
                    << first;
        }
        any |= marks[1];
    }
    any != 0
}
