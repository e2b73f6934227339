//! The first step: settles the pairs for which a few exact tests are enough.

use rayon::prelude::*;

use super::Stats;
use super::found::Found;
use super::picked::By;
use super::points::Place;
use super::search::{Hit, OpenAnchor, OpenPair, Scratch, Search};
use super::shortage::{PAIRS, THREADS};
use crate::{Interrupt, Result, memory};

/// Anchors in a unit of work.
const UNIT: usize = 16;

/// With fewer anchors than this, each is a unit: one identity of 20,000 images keeps all cores busy.
const FEWEST_IN_UNITS: usize = 64 * UNIT;

/// After this many anchors in a row without a settled pair, few rows qualify, and the other anchors of the
/// unit go to the second step untested.
const GIVE_UP_AFTER: usize = 2;

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
            if in_vain < GIVE_UP_AFTER || !self.screen.is_one_stretch() {
                settled = self.probe_anchor(anchor, &mut open, scratch, &mut found.stats)?;
                in_vain = if settled > 0 { 0 } else { in_vain + usize::from(!open.is_empty()) };
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
        stats: &mut Stats,
    ) -> Result<usize> {
        let identity = self.sets.identity_run(anchor);
        let candidates = self.sets.candidates().len();
        let exhaustive = candidates - identity.len() <= self.tries;
        if pairs.is_empty() || !exhaustive && self.stage.by != By::Draw {
            return Ok(0);
        }
        if !exhaustive {
            self.spread(anchor, scratch)?;
        }
        scratch.distances.restart(candidates)?;
        let mut settled = 0;
        for i in 0..pairs.len() {
            let open = &mut pairs[i];
            if exhaustive {
                let negatives = (0..identity.start).chain(identity.end..candidates as Place);
                let hit = |place| Hit { draw: self.order_at_best(&open.pair, place).draw.high, place };
                scratch.hits.clear();
                memory::reserve(&mut scratch.hits, candidates - identity.len(), THREADS)?;
                scratch.hits.extend(negatives.map(hit));
            } else {
                self.hit_lowest(self.tries, anchor, open, scratch, |_| true)?;
            }
            self.test(anchor, open, |place| self.screen.bounds(anchor, place), scratch, stats)?;
            if exhaustive || open.picked.is_full() {
                pairs.swap(i, settled);
                settled += 1;
            } else if self.screen.is_one_stretch() {
                // This anchor will be screened for all candidates, and that makes tests of its other pairs
                // cheaper.
                break;
            }
        }
        Ok(settled)
    }
}
