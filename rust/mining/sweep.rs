//! The second step: settles the rest with the screen, block of anchors by block of anchors, stretch of
//! candidates by stretch of candidates.

use rayon::prelude::*;

use super::Stats;
use super::found::Found;
use super::picked::By;
use super::points::Place;
use super::screen::{self, AnchorEstimates, Block, Bounds, Edges, Estimates};
use super::search::{OpenAnchor, OpenPair, Scratch, Search};
use super::shortage::THREADS;
use crate::{Interrupt, Result, memory};

/// Fewest anchors in a block, unless there are fewer: the rows of the largest register tile.
const LEAST_BLOCK: usize = 12;

/// Once an anchor's distances are estimated, a test costs little: a pair that found nothing among the rows
/// with the smallest draws is tried with this many times as many.
const MORE_TRIES: usize = 10;

/// Up to this many negatives that may be in the window of some pair of an anchor, each of its pairs goes
/// through all of them. With more, it draws first.
pub const MOST_LISTED: usize = 128;

/// Goes through the anchors that the first step left open.
pub fn sweep(search: &Search<'_>, mut open: Vec<OpenAnchor>, interrupt: &Interrupt) -> Result<Found> {
    let share = open.len().div_ceil(rayon::current_num_threads());
    open.par_chunks_mut(share.clamp(LEAST_BLOCK, screen::BLOCK))
        .map_init(Default::default, |(scratch, buffer): &mut (Scratch, Estimates), open| {
            let mut found = Found::default();
            let anchors = memory::collect::<Place>(open.iter().map(|open| open.anchor), THREADS)?;
            let mut block = search.screen.block(&anchors, buffer)?;
            for stretch in search.screen.stretches() {
                block.measure(stretch, interrupt)?;
                let stats = &mut found.stats;
                if search.stage.by == By::Nothing {
                    search.sweep_by_panel(open, &block, interrupt, stats)?;
                    continue;
                }
                for (i, open) in open.iter_mut().enumerate() {
                    let estimates = block.of_anchor(i);
                    match search.stage.by {
                        By::Distance => search.sweep_nearest(open, &estimates, scratch, interrupt, stats)?,
                        By::Weight => search.sweep_by_weight(open, &estimates, scratch, interrupt, stats)?,
                        By::Draw | By::Nothing => {
                            search.sweep_by_draw(open, &estimates, scratch, interrupt, stats)?;
                        }
                    }
                }
            }
            for open in open {
                for mut pair in open.pairs.drain(..) {
                    found.settle(open.anchor, &mut pair, search)?; // what it has picked is freed
                }
            }
            Ok(found)
        })
        .try_reduce(Found::default, Found::join)
}

/// All negatives that qualify.
impl Search<'_> {
    /// Goes through a stretch panel by panel: the rows of a panel are tested for many anchors, and are then
    /// still in L2.
    fn sweep_by_panel(
        &self,
        open: &mut [OpenAnchor],
        block: &Block<'_>,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        let edges = open.iter().enumerate().map(|(i, open)| block.of_anchor(i).edges(open.window()));
        let edges: Vec<Edges> = memory::collect(edges, THREADS)?;
        let pairs: usize = open.iter().map(|open| open.pairs.len()).sum();
        let (mut done, before) = (0, picked(open));
        let swept = block.panels().try_for_each(|panel| {
            interrupt.check()?;
            for (i, (open, edges)) in open.iter_mut().zip(&edges).enumerate() {
                let estimates = block.of_anchor(i);
                estimates.visit_panel(panel, edges, |place| {
                    self.test_for_all(open, estimates.bounds(place), place, stats)
                })?;
            }
            done += pairs;
            Ok(())
        });
        self.progress.add(done, picked(open) - before); // also where memory has ended
        swept
    }

    /// Tests one row for all pairs of an anchor.
    fn test_for_all(
        &self,
        open: &mut OpenAnchor,
        bounds: Bounds,
        place: Place,
        stats: &mut Stats,
    ) -> Result<()> {
        if self.sets.identity_run(open.anchor).contains(&place) {
            return Ok(());
        }
        let mut distance = None;
        for pair in open.pairs.iter_mut().filter(|pair| pair.window.may_hold(bounds)) {
            let d_an = *distance.get_or_insert_with(|| self.distance(open.anchor, place, stats));
            self.offer(pair, place, d_an)?;
        }
        Ok(())
    }
}

/// How many negatives are picked for the pairs of these anchors.
fn picked(open: &[OpenAnchor]) -> usize {
    open.iter().flat_map(|open| &open.pairs).map(|pair| pair.picked.len()).sum()
}

/// How the pairs of an anchor find the rows of a stretch that they test.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Find {
    /// Among the few that are listed in [`Scratch::near`].
    Listed,
    /// By marking those in the window, but first among those with the smallest draws.
    DrawnThenMarked,
    /// By marking those in the window. Draws are not scanned stretch by stretch.
    Marked,
}

/// Random picks.
impl Search<'_> {
    /// Goes through a stretch pair by pair, and through the rows of a pair in the order of their draws.
    fn sweep_by_draw(
        &self,
        open: &mut OpenAnchor,
        estimates: &AnchorEstimates<'_>,
        scratch: &mut Scratch,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        let anchor = open.anchor;
        let find = if self.list_near(open, estimates, scratch)? {
            Find::Listed
        } else if self.screen.is_one_stretch() {
            Find::DrawnThenMarked
        } else {
            Find::Marked
        };
        if find == Find::Listed && scratch.near.is_empty() {
            return Ok(());
        }
        if find == Find::DrawnThenMarked {
            self.spread(anchor, scratch)?;
        }
        scratch.distances.restart(self.sets.candidates().len())?;
        for pair in &mut open.pairs {
            interrupt.check()?;
            let edges = estimates.edges(pair.window);
            if find == Find::DrawnThenMarked
                && pair.tested_below == 0
                && self.settle_by_lowest(anchor, pair, estimates, &edges, scratch, stats)?
            {
                continue;
            }
            if find == Find::Listed {
                self.hit_listed(pair, estimates, &edges, scratch)?;
            } else {
                self.hit_marked(anchor, pair, estimates, scratch)?;
            }
            self.test(anchor, pair, |place| estimates.bounds(place), scratch, stats)?;
        }
        Ok(())
    }

    /// Lists the negatives that may be in the window of some pair, if they are few. Returns whether they are.
    fn list_near(
        &self,
        open: &OpenAnchor,
        estimates: &AnchorEstimates<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool> {
        let Scratch { panel_marks, near, .. } = scratch;
        let identity = self.sets.identity_run(open.anchor);
        // The rows of the identity may be marked, too.
        let few = estimates.mark(open.window(), panel_marks)? <= MOST_LISTED + identity.len();
        near.clear();
        if few {
            estimates.visit(panel_marks, |place| {
                if identity.contains(&place) { Ok(()) } else { memory::push(near, place, THREADS) }
            })?;
        }
        Ok(few)
    }

    /// Tests the rows with the smallest draws. Returns whether that settles the pair.
    fn settle_by_lowest(
        &self,
        anchor: Place,
        pair: &mut OpenPair,
        estimates: &AnchorEstimates<'_>,
        edges: &Edges,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Result<bool> {
        for tries in [self.tries, MORE_TRIES * self.tries] {
            self.hit_lowest(tries, anchor, pair, scratch, |place| estimates.may_hold(edges, place))?;
            let none_in_window = scratch.hits.is_empty();
            self.test(anchor, pair, |place| estimates.bounds(place), scratch, stats)?;
            if pair.picked.is_full() {
                return Ok(true);
            }
            if none_in_window {
                return Ok(false); // few rows are: it is better to find these at once
            }
        }
        Ok(false)
    }

    /// Hits the listed rows that may be in the pair's window.
    fn hit_listed(
        &self,
        pair: &OpenPair,
        estimates: &AnchorEstimates<'_>,
        edges: &Edges,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { near, hits, .. } = scratch;
        hits.clear();
        near.iter()
            .filter(|&&place| estimates.may_hold(edges, place))
            .try_for_each(|&place| self.hit(pair, place, hits))
    }

    /// Hits all negatives of the stretch that may be in the pair's window.
    fn hit_marked(
        &self,
        anchor: Place,
        pair: &OpenPair,
        estimates: &AnchorEstimates<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { panel_marks, hits, .. } = scratch;
        let identity = self.sets.identity_run(anchor);
        hits.clear();
        estimates.mark(pair.window, panel_marks)?;
        estimates.visit(panel_marks, |place| {
            if identity.contains(&place) { Ok(()) } else { self.hit(pair, place, hits) }
        })
    }
}
