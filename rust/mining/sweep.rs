//! The second step: settles the rest with the screen, block of anchors by block of anchors, stretch of
//! candidates by stretch of candidates.

use rayon::prelude::*;

use super::Stats;
use super::found::Found;
use super::hits::{Hit, Reach, Source, Tried};
use super::picked::By;
use super::points::Place;
use super::screen::{self, AnchorEstimates, Block, Bounds, Edges, Estimates};
use super::search::{Draws, OpenAnchor, OpenPair, Scratch, Search};
use super::shortage::THREADS;
use crate::{Interrupt, Result, memory};

/// Fewest anchors in a block, unless there are fewer: the rows of the largest register tile.
const LEAST_BLOCK: usize = 12;

/// Of the rows with the smallest draws, a pair tries so many that about this many are in the window, and two for each
/// that is picked.
const IN_WINDOW: usize = 6;

/// A pair that found too few among these is tried with this many times as many, and once more so.
const MORE: usize = 6;

/// Up to this many negatives that may be in the window of some pair of an anchor, each of its pairs goes
/// through all of them. With more, it begins with those with the smallest draws.
pub const MOST_LISTED: usize = 128;

/// Goes through the anchors that the first step left open.
pub fn sweep(search: &Search<'_>, mut open: Vec<OpenAnchor>, interrupt: &Interrupt) -> Result<Found> {
    let share = open.len().div_ceil(rayon::current_num_threads());
    open.par_chunks_mut(share.clamp(LEAST_BLOCK, screen::BLOCK))
        .map_init(Default::default, |(scratch, buffer): &mut (Scratch, Estimates), open| {
            let mut found = Found::default();
            let anchors = memory::collect::<Place>(open.iter().map(|open| open.anchor), THREADS)?;
            let mut block = search.screen.block(&anchors, search.sets.own_run_of_all(&anchors), buffer)?;
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
        if self.sets.own_run(open.anchor).contains(&place) {
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

/// Random picks.
impl Search<'_> {
    /// Goes through a stretch for the pairs of an anchor, and through the rows of a pair in the order of their draws.
    fn sweep_by_draw(
        &self,
        open: &mut OpenAnchor,
        estimates: &AnchorEstimates<'_>,
        scratch: &mut Scratch,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        let OpenAnchor { anchor, .. } = *open;
        let Scratch { draws, panel_marks, near, hits, distances, .. } = scratch;
        let places = estimates.places();
        let marked = self.list_near(open, estimates, panel_marks, near)?;
        let listed = marked <= MOST_LISTED;
        if listed && near.is_empty() {
            return Ok(());
        }
        if !listed {
            self.spread(anchor, places.clone(), draws)?;
        }
        let in_window = IN_WINDOW + 2 * self.stage.most.min(places.len());
        let tries = (in_window * places.len() / marked.max(1)).min(self.tries);
        let mut stretch =
            Stretch { search: self, anchor, estimates, listed, near, tries, draws, panel_marks };
        self.test_hits(anchor, &mut open.pairs, &mut stretch, hits, distances, interrupt, stats)
    }

    /// Lists the negatives that may be in the window of some pair, if they are few. Returns how many may be.
    fn list_near(
        &self,
        open: &OpenAnchor,
        estimates: &AnchorEstimates<'_>,
        marks: &mut Vec<u32>,
        near: &mut Vec<Place>,
    ) -> Result<usize> {
        let marked = estimates.mark(open.window(), &self.sets.own_run(open.anchor), marks)?;
        near.clear();
        if marked <= MOST_LISTED {
            estimates.visit(marks, |place| memory::push(near, place, THREADS))?;
        }
        Ok(marked)
    }
}

/// The candidates of a stretch, for the pairs of an anchor.
struct Stretch<'s> {
    search: &'s Search<'s>,
    anchor: Place,
    estimates: &'s AnchorEstimates<'s>,
    /// Whether those are few that may be in the window of some pair.
    listed: bool,
    /// These.
    near: &'s [Place],
    /// How many of the others are tried first, those with the smallest draws.
    tries: usize,
    draws: &'s mut Draws,
    panel_marks: &'s mut Vec<u32>,
}

impl Source for Stretch<'_> {
    fn hit(&mut self, open: &mut OpenPair, tried: &mut Tried, hits: &mut Vec<Hit>) -> Result<bool> {
        let Self { search, estimates, .. } = *self;
        let most = MORE * MORE * self.tries;
        tried.reach = match tried.reach {
            Reach::Nothing if self.listed => Reach::All,
            Reach::Nothing => Reach::Lowest(if tried.below == 0 { self.tries } else { most }),
            // Where few are in the window, it is better to find these at once.
            Reach::Lowest(tries) if tries < most && (tried.any_near || tries < search.tries) => {
                Reach::Lowest(MORE * tries)
            }
            Reach::Lowest(_) => Reach::All,
            Reach::All => return Ok(false),
        };
        let edges = estimates.edges(open.window);
        match tried.reach {
            Reach::Nothing => {}
            Reach::Lowest(tries) => {
                let may_hold = |place| estimates.may_hold(&edges, place);
                tried.below = search.hit_lowest(tries, open, tried.below, may_hold, self.draws, hits)?;
            }
            Reach::All if self.listed => {
                let may_hold = |place: &&Place| estimates.may_hold(&edges, **place);
                let mut near = self.near.iter().filter(may_hold);
                near.try_for_each(|&place| search.hit(open, tried.below, place, hits))?;
            }
            Reach::All => {
                estimates.mark(open.window, &search.sets.own_run(self.anchor), self.panel_marks)?;
                estimates.visit(self.panel_marks, |place| search.hit(open, tried.below, place, hits))?;
            }
        }
        Ok(true)
    }

    fn bounds(&self, place: Place) -> Bounds {
        self.estimates.bounds(place)
    }
}
