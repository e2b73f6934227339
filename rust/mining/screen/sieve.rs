//! Products that serve both of their rows, where the candidates are the anchors.
//!
//! An estimate is compared with the window of either row: as a [`mark`](super::mark) is, for the anchor, and with
//! edges of their own for the candidates of a panel. Only the few rows that pass are kept. That pays where nearly
//! all anchors are looked at, and few rows are in their windows.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::block::is_within;
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
    /// Candidates that are no negatives of any of them.
    own: Range<Place>,
}

/// What all threads share: the windows of the anchors, and how many candidates each has.
struct Sieve<'a, F> {
    screen: &'a Screen<'a>,
    anchors: Range<Place>,
    /// Of the anchors.
    windows: &'a [Window],
    /// Of the panels that have anchors.
    columns: Vec<Columns>,
    /// The candidates that are no negatives of an anchor.
    own: F,
    most: u32,
    counts: Vec<AtomicU32>,
}

impl Screen<'_> {
    /// Looks for the candidates that may be in the window of each of some consecutive anchors, but for its `own`. At
    /// most `most` are kept of an anchor.
    pub fn sieve(
        &self,
        anchors: Range<Place>,
        windows: &[Window],
        most: usize,
        own: impl Fn(Place) -> Range<Place> + Sync,
        interrupt: &Interrupt,
    ) -> Result<Near> {
        let mut counts = memory::empty(windows.len(), ROWS)?;
        counts.extend(windows.iter().map(|_| AtomicU32::new(0)));
        let panels = anchors.start as usize / COLUMNS..(anchors.end as usize).div_ceil(COLUMNS);
        let columns = memory::collect(panels.map(|panel| self.columns(panel, &anchors, windows)), ROWS)?;
        let sieve = Sieve { screen: self, anchors, windows, columns, own, most: most as u32, counts };
        // Fewer blocks together where there are few for each thread: the first ones have the most panels.
        let together = windows.len().div_ceil(BLOCK * 8 * rayon::current_num_threads()).clamp(1, BLOCKS);
        let groups = memory::collect(sieve.anchors.clone().step_by(together * BLOCK), ROWS)?;
        let passes = groups
            .par_iter()
            .map(|&first| {
                sieve.group(first..sieve.anchors.end.min(first + (together * BLOCK) as Place), interrupt)
            })
            .collect::<Result<Vec<_>>>()?;
        Near::new(sieve.anchors.start, sieve.counts, sieve.most, &passes)
    }

    /// The edges of the windows of a panel's candidates, those that are anchors.
    fn columns(&self, panel: usize, anchors: &Range<Place>, windows: &[Window]) -> Columns {
        let mut columns = Columns {
            above: [f32::INFINITY; COLUMNS],
            below: [0.0; COLUMNS],
            squared_norms: [0.0; COLUMNS],
            residuals: [0.0; COLUMNS],
        };
        for (column, place) in ((panel * COLUMNS) as Place..).take(COLUMNS).enumerate() {
            if anchors.contains(&place) {
                let edges = self.edges_of(place, windows[(place - anchors.start) as usize]);
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
}

impl<F: Fn(Place) -> Range<Place> + Sync> Sieve<'_, F> {
    /// What passes of the panels and some blocks of anchors, which stay in the cache from panel to panel.
    fn group(&self, group: Range<Place>, interrupt: &Interrupt) -> Result<Vec<Pass>> {
        let blocks =
            group.clone().step_by(BLOCK).map(|first| self.rows(first..group.end.min(first + BLOCK as Place)));
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let (mut passes, mut estimates) = (Vec::new(), [[0.0; COLUMNS]; BLOCK]);
        for panel in 0..self.screen.panels.len() {
            interrupt.check()?;
            for rows in &blocks {
                self.pass(rows, panel, &mut estimates, &mut passes)?;
            }
        }
        Ok(passes)
    }

    fn rows(&self, anchors: Range<Place>) -> Result<Rows<'_>> {
        let places = memory::collect(anchors.clone(), THREADS)?;
        let windows = &self.windows[(anchors.start - self.anchors.start) as usize..];
        let edges =
            anchors.clone().zip(windows).map(|(anchor, &window)| self.screen.edges_of(anchor, window));
        let edges = memory::collect(edges, THREADS)?;
        let mut squared_norms = [0.0; BLOCK];
        for (to, edges) in squared_norms.iter_mut().zip(&edges) {
            *to = edges.squared_norm;
        }
        Ok(Rows {
            squared_norm: squared_norms.iter().fold(0.0_f32, |a, &b| a.max(b)) * RAISE as f32,
            residual: edges.iter().fold(0.0_f32, |a, edges| a.max(edges.residual)),
            squared_norms,
            estimate: self.screen.product.block(&places)?,
            edges,
            own: self.own_of_all(&anchors),
            anchors,
        })
    }

    /// Compares the estimates of a block and a panel with the windows of both.
    fn pass(
        &self,
        rows: &Rows<'_>,
        panel: usize,
        estimates: &mut [[f32; COLUMNS]; BLOCK],
        passes: &mut Vec<Pass>,
    ) -> Result<()> {
        let (screen, anchors) = (self.screen, &self.anchors);
        let first = (panel * COLUMNS) as Place;
        let end = first + COLUMNS as Place;
        if first >= anchors.start && end <= rows.anchors.start {
            return Ok(()); // all are anchors, and meet these as their candidates
        }
        if is_within(panel, &rows.own) {
            return Ok(());
        }
        let columns = (first < anchors.end && end > anchors.start)
            .then(|| &self.columns[panel - anchors.start as usize / COLUMNS]);
        let of_panel = &screen.panels[panel];
        (rows.estimate)(panel, &of_panel.squared_norms, estimates);
        let mut marks = [[0; 2]; BLOCK];
        if !pass_both(screen.isa, estimates, of_panel, rows, columns, screen.error as f32, &mut marks) {
            return Ok(());
        }
        for (anchor, [of_row, of_column]) in rows.anchors.clone().zip(marks) {
            let mut any = of_row | of_column;
            while any != 0 {
                let lane = any.trailing_zeros();
                any &= any - 1;
                let candidate = first + lane;
                if anchors.contains(&candidate) && candidate <= anchor {
                    continue; // as above
                }
                if of_row >> lane & 1 == 1 {
                    self.keep(passes, anchor, candidate)?;
                }
                if of_column >> lane & 1 == 1 {
                    self.keep(passes, candidate, anchor)?;
                }
            }
        }
        Ok(())
    }

    /// What is their own of all of these consecutive anchors.
    fn own_of_all(&self, anchors: &Range<Place>) -> Range<Place> {
        let (first, last) = ((self.own)(anchors.start), (self.own)(anchors.end - 1));
        if first == last { first } else { 0..0 }
    }

    fn keep(&self, passes: &mut Vec<Pass>, anchor: Place, candidate: Place) -> Result<()> {
        if (self.own)(anchor).contains(&candidate) {
            return Ok(());
        }
        let count = self.counts[(anchor - self.anchors.start) as usize].fetch_add(1, Ordering::Relaxed);
        if count < self.most { memory::push(passes, (anchor, candidate), THREADS) } else { Ok(()) }
    }
}

impl Near {
    /// Sorts what passed by anchor and candidate.
    fn new(first: Place, counts: Vec<AtomicU32>, most: u32, passes: &[Vec<Pass>]) -> Result<Self> {
        let mut starts = memory::empty(counts.len() + 1, ROWS)?;
        let mut end = 0;
        for count in &counts {
            starts.push(end);
            end += count.load(Ordering::Relaxed).min(most) as usize;
        }
        starts.push(end);
        let mut places = memory::zeroed::<Place>(end, ROWS)?;
        let mut next = memory::collect(starts.iter().copied(), ROWS)?;
        for &(anchor, candidate) in passes.iter().flatten() {
            let at = &mut next[(anchor - first) as usize];
            places[*at] = candidate;
            *at += 1;
        }
        for ends in starts.windows(2) {
            places[ends[0]..ends[1]].sort_unstable();
        }
        Ok(Self { first, counts, most, starts, places })
    }

    /// The candidates that may be in the window of an anchor; None if there are too many.
    pub fn of(&self, anchor: Place) -> Option<&[Place]> {
        let at = (anchor - self.first) as usize;
        let few = self.counts[at].load(Ordering::Relaxed) <= self.most;
        few.then(|| &self.places[self.starts[at]..self.starts[at + 1]])
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
