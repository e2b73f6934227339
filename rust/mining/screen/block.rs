//! A block of anchors, its estimates for one stretch of candidates, and which of these may be in a window.

use std::ops::Range;

use super::mark::{Edges, least, mark};
use super::{BLOCK, BoundTerms, Bounds, COLUMNS, EstimatePanel, STRETCH, Screen, Window};
use crate::mining::points::Place;
use crate::mining::shortage::THREADS;
use crate::{Interrupt, Result, memory};

/// The estimates `v` of [`BLOCK`] anchors for one panel, then for the next one.
pub type Estimates = Vec<[f32; COLUMNS]>;

/// Some anchors and their estimated distances to one stretch of the candidates.
pub struct Block<'a> {
    screen: &'a Screen<'a>,
    estimate: EstimatePanel<'a>,
    /// Of each anchor.
    terms: Vec<BoundTerms>,
    estimates: &'a mut Estimates,
    stretch: Range<usize>,
    /// Candidates that are of no interest to any of the anchors.
    skipped: Range<Place>,
}

impl Screen<'_> {
    /// Packs at most [`BLOCK`] anchors. Estimates of `skipped` candidates are infinite, if whole panels are. `estimates`
    /// is a buffer to reuse.
    pub fn block<'b>(
        &'b self,
        anchors: &[Place],
        skipped: Range<Place>,
        estimates: &'b mut Estimates,
    ) -> Result<Block<'b>> {
        debug_assert!(anchors.len() <= BLOCK);
        memory::resize(estimates, BLOCK * self.panels.len().min(STRETCH), [0.0; COLUMNS], THREADS)?;
        let terms = anchors.iter().map(|&place| self.product.anchors()[place as usize]);
        Ok(Block {
            screen: self,
            estimate: self.product.block(anchors)?,
            terms: memory::collect(terms, THREADS)?,
            estimates,
            stretch: 0..0,
            skipped,
        })
    }
}

impl Block<'_> {
    /// Estimates the distances to the candidates of a stretch. Those of the last stretch are overwritten.
    pub fn measure(&mut self, stretch: Range<usize>, interrupt: &Interrupt) -> Result<()> {
        for (panel, estimates) in stretch.clone().zip(self.estimates.chunks_exact_mut(BLOCK)) {
            interrupt.check()?;
            if is_within(panel, &self.skipped) {
                estimates.fill([f32::INFINITY; COLUMNS]);
                continue;
            }
            (self.estimate)(panel, &self.screen.panels[panel].squared_norms, estimates);
        }
        self.stretch = stretch;
        Ok(())
    }

    /// The panels of the stretch.
    pub fn panels(&self) -> Range<usize> {
        self.stretch.clone()
    }

    /// The estimates of anchor `i` of the block.
    pub fn of_anchor(&self, i: usize) -> AnchorEstimates<'_> {
        AnchorEstimates { block: self, i }
    }
}

/// Buffers of [`AnchorEstimates::nearest`].
#[derive(Default)]
pub struct Nearest {
    /// The smallest estimate of each panel.
    least: Vec<f32>,
    sorted: Vec<f32>,
}

/// The estimated distances from one anchor to the candidates of a stretch.
pub struct AnchorEstimates<'a> {
    block: &'a Block<'a>,
    /// Index of the anchor in the block.
    i: usize,
}

impl AnchorEstimates<'_> {
    fn of_panel(&self, panel: usize) -> &[f32; COLUMNS] {
        &self.block.estimates[(panel - self.block.stretch.start) * BLOCK + self.i]
    }

    /// How many candidates the stretch has, or up to a panel more.
    pub fn candidates(&self) -> usize {
        self.block.stretch.len() * COLUMNS
    }

    /// The candidates of the stretch.
    pub fn places(&self) -> Range<Place> {
        let Range { start, end } = self.block.stretch;
        let all = self.block.screen.product.candidates().len();
        (start * COLUMNS) as Place..all.min(end * COLUMNS) as Place
    }

    /// Whether a candidate is in the stretch.
    pub fn covers(&self, candidate: Place) -> bool {
        self.block.stretch.contains(&(candidate as usize / COLUMNS))
    }

    /// What is known of the distance to a candidate of the stretch.
    pub fn bounds(&self, candidate: Place) -> Bounds {
        let (screen, place) = (self.block.screen, candidate as usize);
        let v = self.of_panel(place / COLUMNS)[place % COLUMNS];
        screen.bounds_of(v, self.block.terms[self.i], screen.product.candidates()[place])
    }

    /// The edges of a window around the anchor.
    pub fn edges(&self, window: Window) -> Edges {
        self.block.screen.edges(window, self.block.terms[self.i])
    }

    /// Whether a candidate of the stretch may be between the edges.
    pub fn may_hold(&self, edges: &Edges, candidate: Place) -> bool {
        let (panel, column) = (candidate as usize / COLUMNS, candidate as usize % COLUMNS);
        let (low, high) = edges.of_panel(&self.block.screen.panels[panel]);
        let v = self.of_panel(panel)[column];
        low < v && v < high
    }

    /// Marks the candidates of the stretch that may be in the window, but none of the anchor's `own`. Returns their
    /// number.
    pub fn mark(&self, window: Window, own: &Range<Place>, marks: &mut Vec<u32>) -> Result<usize> {
        let block = self.block;
        memory::resize(marks, block.stretch.len(), 0, THREADS)?;
        let panels = &block.screen.panels[block.stretch.clone()];
        mark(block.screen.isa, &block.estimates[self.i..], panels, &self.edges(window), marks);
        let first = block.stretch.start;
        let of_own = own.start as usize / COLUMNS..(own.end as usize).div_ceil(COLUMNS);
        for panel in of_own.start.max(first)..of_own.end.min(block.stretch.end) {
            let start = (panel * COLUMNS) as Place;
            let (from, to) = (own.start.saturating_sub(start), (own.end - start).min(COLUMNS as Place));
            marks[panel - first] &= !(((1_u64 << to) - (1_u64 << from)) as u32);
        }
        Ok(marks.iter().map(|marks| marks.count_ones() as usize).sum())
    }

    /// The part of a window that holds the `most` nearest candidates of the stretch that are in it, those as far
    /// away as the last of them included; it may hold more. The anchor's `own` candidates are none of them.
    pub fn nearest(
        &self,
        window: Window,
        most: usize,
        own: &Range<Place>,
        scratch: &mut Nearest,
    ) -> Result<Window> {
        let (screen, stretch) = (self.block.screen, self.block.stretch.clone());
        let (panels, Nearest { least: of_panels, sorted }) = (&screen.panels[stretch.clone()], scratch);
        if most > panels.len() {
            return Ok(window);
        }
        memory::resize(of_panels, panels.len(), 0.0, THREADS)?;
        least(screen.isa, &self.block.estimates[self.i..], panels, &self.edges(window), of_panels);
        let of_own = own.start as usize / COLUMNS..(own.end as usize).div_ceil(COLUMNS);
        let (first, end) = (of_own.start.max(stretch.start), of_own.end.min(stretch.end));
        for panel in first..end {
            of_panels[panel - stretch.start] = f32::INFINITY; // it may be one of these
        }
        // One candidate of each panel is enough: as many as are asked for are that near, or nearer.
        sorted.clear();
        memory::reserve(sorted, panels.len(), THREADS)?;
        sorted.extend_from_slice(of_panels);
        let (_, &mut last, _) = sorted.select_nth_unstable_by(most - 1, f32::total_cmp);
        if last == f32::INFINITY {
            return Ok(window);
        }
        let farthest = of_panels.iter().zip(panels).filter(|(v, _)| **v <= last).map(|(&v, panel)| {
            let terms = BoundTerms {
                squared_norm: f64::from(panel.squared_norm),
                residual: f64::from(panel.residual),
            };
            screen.bounds_of(v, self.block.terms[self.i], terms).high
        });
        Ok(screen.up_to(window, farthest.fold(0.0, f64::max)))
    }

    /// The candidate of the stretch with the largest estimate, but for the anchor's `own`.
    pub fn farthest(&self, own: &Range<Place>) -> Option<Place> {
        let mut largest = None;
        for panel in self.block.stretch.clone() {
            for (place, &v) in ((panel * COLUMNS) as Place..).zip(self.of_panel(panel)) {
                let farther = v < f32::INFINITY && largest.is_none_or(|(_, most)| v > most);
                if farther && !own.contains(&place) {
                    largest = Some((place, v));
                }
            }
        }
        largest.map(|(place, _)| place)
    }

    /// Calls `visit` for every candidate that is marked.
    pub fn visit(&self, marks: &[u32], mut visit: impl FnMut(Place) -> Result<()>) -> Result<()> {
        let mut panels = self.block.stretch.clone().zip(marks);
        panels.try_for_each(|(panel, &marks)| visit_marked(panel, marks, &mut visit))
    }

    /// Calls `visit` for every candidate of one panel that may be between the edges.
    pub fn visit_panel(
        &self,
        panel: usize,
        edges: &Edges,
        visit: impl FnMut(Place) -> Result<()>,
    ) -> Result<()> {
        let screen = self.block.screen;
        let mut marks = [0];
        mark(screen.isa, &[*self.of_panel(panel)], &screen.panels[panel..=panel], edges, &mut marks);
        visit_marked(panel, marks[0], visit)
    }
}

/// Whether all candidates of a panel are among these.
pub(super) fn is_within(panel: usize, places: &Range<Place>) -> bool {
    let first = (panel * COLUMNS) as Place;
    places.start <= first && first + COLUMNS as Place <= places.end
}

fn visit_marked(panel: usize, mut marks: u32, mut visit: impl FnMut(Place) -> Result<()>) -> Result<()> {
    while marks != 0 {
        visit((panel * COLUMNS) as Place + marks.trailing_zeros())?;
        marks &= marks - 1;
    }
    Ok(())
}
