//! The hardest negatives: the nearest ones that qualify.

use super::Stats;
use super::exact::TOGETHER;
use super::pairs::pairs_of;
use super::points::Place;
use super::screen::{AnchorEstimates, BLOCK};
use super::search::{OpenAnchor, OpenPair, Scratch, Search};
use super::shortage::THREADS;
use crate::{Interrupt, Result, memory};

/// How many times as long a test takes as what a product in 16 bits takes more than one in 8: 60 ns and 2.5 ns
/// (512 columns, VNNI). If more rows than one in this many pass the coarse screen, the fine one is faster.
const TEST: usize = 24;

/// Pairs of an anchor by which the screen is chosen.
const TRIED: usize = 8;

/// Rows that wait until as many are there as are tested together.
#[derive(Default)]
struct Waiting {
    places: [Place; TOGETHER],
    count: usize,
}

impl Waiting {
    /// Adds a row; all of them, if they are as many.
    fn push(&mut self, place: Place) -> Option<[Place; TOGETHER]> {
        self.places[self.count] = place;
        self.count = (self.count + 1) % TOGETHER;
        (self.count == 0).then_some(self.places)
    }

    /// Those that are left.
    fn rest(&self) -> &[Place] {
        &self.places[..self.count]
    }
}

impl Search<'_> {
    /// Goes through a stretch pair by pair. What the screen knows for certain narrows a pair's window before the
    /// first row is tested, and each row that is picked narrows it further.
    pub fn sweep_nearest(
        &self,
        open: &mut OpenAnchor,
        estimates: &AnchorEstimates<'_>,
        scratch: &mut Scratch,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        let (anchor, identity) = (open.anchor, self.sets.identity_run(open.anchor));
        let Scratch { panel_marks, distances, nearest, .. } = scratch;
        distances.restart(self.sets.candidates().len())?;
        for open in &mut open.pairs {
            interrupt.check()?;
            open.window =
                estimates.nearest(open.window, self.options.negatives_per_pair, &identity, nearest)?;
            estimates.mark(open.window, panel_marks)?;
            let mut waiting = Waiting::default();
            estimates.visit(panel_marks, |place| {
                if identity.contains(&place) || !open.window.may_hold(estimates.bounds(place)) {
                    return Ok(());
                }
                if let Some(d_an) = distances.known(place) {
                    return self.offer_and_narrow(open, place, d_an);
                }
                let Some(places) = waiting.push(place) else { return Ok(()) };
                let found = self.distances(anchor, places, stats);
                for (place, d_an) in places.into_iter().zip(found) {
                    distances.keep(place, d_an);
                    self.offer_and_narrow(open, place, d_an)?;
                }
                Ok(())
            })?;
            for &place in waiting.rest() {
                let d_an = self.distance(anchor, place, stats);
                distances.keep(place, d_an);
                self.offer_and_narrow(open, place, d_an)?;
            }
        }
        Ok(())
    }

    fn offer_and_narrow(&self, open: &mut OpenPair, place: Place, d_an: f64) -> Result<()> {
        self.offer(&open.pair, &mut open.picked, place, d_an)?;
        if let Some(last) = open.picked.last() {
            open.window = open.window.up_to_end_of(self.window(&open.pair, last.d_an));
        }
        Ok(())
    }

    /// Whether so few rows pass this search's screen that a finer one would not pay: tried with a few anchors.
    pub fn few_pass(&self, interrupt: &Interrupt) -> Result<bool> {
        let (all, mut stats) = (self.sets.anchors.len(), Stats::default());
        let evenly = (0..all.min(BLOCK)).map(|i| (i * all / all.min(BLOCK)) as Place);
        let anchors: Vec<Place> = memory::collect(evenly, THREADS)?;
        let Some(stretch) = self.screen.stretches().next() else { return Ok(true) };
        let (mut estimates, mut scratch) = (Vec::new(), Scratch::default());
        let mut block = self.screen.block(&anchors, &mut estimates)?;
        block.measure(stretch, interrupt)?;
        let (mut passed, mut seen) = (0, 0);
        for (i, &anchor) in anchors.iter().enumerate() {
            let (from_anchor, identity) = (block.of_anchor(i), self.sets.identity_run(anchor));
            let pairs = pairs_of(anchor, self.sets, self.options, self.isa, &mut stats)?;
            seen += from_anchor.candidates();
            for open in self.open_all(pairs)?.iter().take(TRIED) {
                let most = self.options.negatives_per_pair;
                let window = from_anchor.nearest(open.window, most, &identity, &mut scratch.nearest)?;
                passed += from_anchor.mark(window, &mut scratch.panel_marks)?;
            }
        }
        Ok(passed * TEST <= seen)
    }
}
