//! The first step: settles the pairs for which a few exact tests are enough.

use rayon::prelude::*;

use super::Stats;
use super::found::Found;
use super::hits::{Hit, Reach, Source, Tried};
use super::picked::By;
use super::points::Place;
use super::screen::Bounds;
use super::search::{Draws, OpenAnchor, OpenPair, Scratch, Search};
use super::shortage::{PAIRS, THREADS};
use crate::{Interrupt, Result, memory};

/// Anchors in a unit of work.
const UNIT: usize = 16;

/// With fewer anchors than this, each is a unit: one identity of 20,000 images keeps all cores busy.
const FEWEST_IN_UNITS: usize = 64 * UNIT;

/// After this many anchors in a row with pairs that stay open, the other anchors of the unit go to the second step
/// untested, where tests are cheaper. Those without a settled pair count twice: few rows qualify.
const GIVE_UP_AFTER: usize = 4;

/// Goes through the anchors. What is not settled is in [`Found::open`].
pub fn probe(search: &Search<'_>, mut open: Vec<OpenAnchor>, interrupt: &Interrupt) -> Result<Found> {
    let unit = if open.len() < FEWEST_IN_UNITS { 1 } else { UNIT };
    open.par_chunks_mut(unit)
        .map_init(Scratch::default, |scratch, open| search.probe_unit(open, scratch, interrupt))
        .try_reduce(Found::default, Found::join)
}

impl Search<'_> {
    fn probe_unit(
        &self,
        unit: &mut [OpenAnchor],
        scratch: &mut Scratch,
        interrupt: &Interrupt,
    ) -> Result<Found> {
        let mut found = Found::default();
        let mut in_vain = 0;
        for OpenAnchor { anchor, pairs } in unit {
            interrupt.check()?;
            let (anchor, mut open) = (*anchor, std::mem::take(pairs));
            // No distance at all is in an empty window.
            for mut pair in open.extract_if(.., |pair| pair.window.is_empty()) {
                found.settle(anchor, &mut pair, self)?;
            }
            let mut settled = 0;
            if in_vain < GIVE_UP_AFTER {
                settled = self.probe_anchor(anchor, &mut open, scratch, interrupt, &mut found.stats)?;
                in_vain = match settled {
                    _ if settled == open.len() => 0,
                    0 => in_vain + 2,
                    _ => in_vain + 1,
                };
            }
            for mut pair in open.drain(..settled) {
                found.settle(anchor, &mut pair, self)?;
            }
            if !open.is_empty() {
                found.stats.pairs_screened += open.len() as u64;
                memory::push(&mut found.open, OpenAnchor { anchor, pairs: open }, PAIRS)?;
            }
        }
        let pairs: usize = found.open.iter().map(|open| open.pairs.len()).sum();
        self.progress.plan(pairs * self.screen.panels(), found.triplets());
        Ok(found)
    }

    /// Tests a few negatives of each pair: all of them if these are not more than a few, otherwise, for a
    /// random pick, those with the smallest draws. Moves the pairs that this settles to the front, and
    /// returns their number.
    fn probe_anchor(
        &self,
        anchor: Place,
        pairs: &mut [OpenPair],
        scratch: &mut Scratch,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<usize> {
        let own = self.sets.own_run(anchor);
        let candidates = self.sets.candidates().len();
        let exhaustive = candidates - own.len() <= self.tries;
        if pairs.is_empty() || !exhaustive && self.stage.by != By::Draw {
            return Ok(0);
        }
        let Scratch { draws, hits, distances, .. } = scratch;
        if !exhaustive {
            self.spread(anchor, 0..candidates as Place, draws)?;
        }
        let mut few = Few { search: self, anchor, exhaustive, draws, in_vain: false };
        self.test_hits(anchor, pairs, &mut few, hits, distances, interrupt, stats)?;
        let mut settled = 0;
        for i in 0..pairs.len() {
            if exhaustive || pairs[i].picked.is_full() {
                pairs.swap(i, settled);
                settled += 1;
            }
        }
        Ok(settled)
    }
}

/// A few negatives of each pair.
struct Few<'s> {
    search: &'s Search<'s>,
    anchor: Place,
    /// Whether these are all.
    exhaustive: bool,
    draws: &'s mut Draws,
    /// Whether they did not settle a pair.
    in_vain: bool,
}

impl Source for Few<'_> {
    fn hit(&mut self, open: &mut OpenPair, tried: &mut Tried, hits: &mut Vec<Hit>) -> Result<bool> {
        let Self { search, anchor, exhaustive, .. } = *self;
        if tried.reach != Reach::Nothing {
            self.in_vain = true;
            return Ok(false);
        }
        if exhaustive {
            tried.reach = Reach::All;
            let (own, all) = (search.sets.own_run(anchor), search.sets.candidates().len() as Place);
            let negatives = (0..own.start).chain(own.end..all);
            let hit = |place| Hit { draw: search.order_at_best(&open.pair, place).draw.high, place };
            memory::reserve(hits, all as usize - own.len(), THREADS)?;
            hits.extend(negatives.map(hit));
        } else if self.in_vain && search.screen.is_one_stretch() {
            // This anchor will be screened for all candidates, and that makes tests of its other pairs cheaper.
            return Ok(false);
        } else {
            tried.reach = Reach::Lowest(search.tries);
            tried.below = search.hit_lowest(search.tries, open, 0, |_| true, self.draws, hits)?;
            open.tested_below = tried.below;
        }
        Ok(true)
    }

    fn bounds(&self, place: Place) -> Bounds {
        self.search.screen.bounds(self.anchor, place)
    }
}
