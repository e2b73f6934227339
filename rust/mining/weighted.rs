//! Distance-weighted picks: the negatives with the smallest keys, in which a small draw makes up for a small weight.

use super::Stats;
use super::hits::Hit;
use super::narrow::Narrow;
use super::points::Place;
use super::screen::{AnchorEstimates, Bounds, Window};
use super::search::{OpenAnchor, OpenPair, Scratch, Search};
use super::weight::from_ordered_bits;
use crate::{Interrupt, Result};

/// Candidates with the smallest draws that are tested before the others. Those need a weight that is larger by as
/// much as their draws are. One in 64, and at most this many: with 8 or 16, rows of 4 to 512 columns took longer in
/// one case or the other.
const FIRST: usize = 12;

/// The windows of an open pair for rows that have not been tested, by the leading zeros of the high part of a
/// draw: the more there are, the farther a row may be.
struct Windows<'a> {
    search: &'a Search<'a>,
    /// The spreads of all candidates for the pair's anchor.
    spreads: &'a [u16],
    /// The key that they are for: that of the last negative picked.
    key: Option<u64>,
    /// Up to those of the smallest draw.
    of_zeros: [Window; 17],
}

impl<'a> Windows<'a> {
    fn new(search: &'a Search<'a>, spreads: &'a [u16], open: &OpenPair) -> Self {
        let mut windows = Self { search, spreads, key: None, of_zeros: [open.window; 17] };
        windows.narrow(open);
        windows
    }

    /// That of the smallest draw that was not tested.
    fn widest(&self, open: &OpenPair) -> Window {
        self.of_zeros[open.tested_below.leading_zeros() as usize]
    }
}

impl Narrow for Windows<'_> {
    fn may_be_picked(&self, open: &OpenPair, place: Place, bounds: impl FnOnce() -> Bounds) -> bool {
        let draw = open.pair.key.map_spread(self.spreads[place as usize]);
        draw >= open.tested_below && self.of_zeros[draw.leading_zeros() as usize].may_hold(bounds())
    }

    fn narrow(&mut self, open: &OpenPair) {
        let Some(last) = open.picked.last().filter(|last| self.key != Some(last.order.key)) else { return };
        self.key = Some(last.order.key);
        let (key, search) = (from_ordered_bits(last.order.key), self.search);
        let mut windows =
            self.of_zeros[..=open.tested_below.leading_zeros() as usize].iter_mut().enumerate().rev();
        for (zeros, window) in windows.by_ref() {
            let least = (1_u32 << 16 >> (zeros + 1)) as u16;
            let Some(farthest) = search.choice.weights().farthest(key, least.max(open.tested_below)) else {
                *window = Window::EMPTY;
                break; // as are those of larger draws
            };
            *window = open.window.up_to_end_of(search.screen.window(f64::NEG_INFINITY, farthest));
        }
        windows.for_each(|(_, window)| *window = Window::EMPTY);
    }
}

impl Search<'_> {
    /// Goes through a stretch pair by pair: first to the rows with the smallest draws, then to those that are near
    /// enough for their draws.
    pub fn sweep_by_weight(
        &self,
        open: &mut OpenAnchor,
        estimates: &AnchorEstimates<'_>,
        scratch: &mut Scratch,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        let anchor = open.anchor;
        scratch.distances.restart(self.sets.candidates().len())?;
        self.spread(anchor, 0..self.sets.candidates().len() as Place, &mut scratch.draws)?;
        for open in &mut open.pairs {
            interrupt.check()?;
            if open.tested_below == 0 {
                let first = (self.sets.candidates().len() / 64).clamp(2, FIRST);
                let Scratch { draws, hits: [hits, ..], distances, .. } = &mut *scratch;
                open.tested_below = self.hit_lowest(first, open, 0, |_| true, draws, hits)?;
                for Hit { place, .. } in hits.drain(..) {
                    if !estimates.covers(place) || open.window.may_hold(estimates.bounds(place)) {
                        let d_an =
                            distances.get_or_insert_with(place, || self.distance(anchor, place, stats));
                        self.offer(open, place, d_an)?;
                    }
                }
            }
            let Scratch { draws, panel_marks, distances, .. } = &mut *scratch;
            let mut windows = Windows::new(self, &draws.spreads, open);
            if windows.widest(open).is_empty() {
                continue;
            }
            estimates.mark(windows.widest(open), &self.sets.own_run(anchor), panel_marks)?;
            self.test_marked(anchor, open, &mut windows, estimates, panel_marks, distances, stats)?;
        }
        Ok(())
    }
}
