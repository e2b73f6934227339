//! Tests of rows in the order of their draws, for the pairs of an anchor side by side.
//!
//! Usually the first or the second row is picked. So a pair has little to test at once, and what a test waits for
//! is a row from memory and additions that wait for each other. [`TOGETHER`] pairs of an anchor each give the row
//! that they need next, and where one is settled, the next pair takes its turn.

use super::Stats;
use super::exact::TOGETHER;
use super::picked::By;
use super::points::Place;
use super::screen::Bounds;
use super::search::{Distances, OpenPair, Search};
use super::shortage::THREADS;
use crate::{Interrupt, Result, memory};

/// Up to this many hits, looking for the smallest one each time is faster than sorting them.
const MOST_UNSORTED: usize = 64;

/// A row to test.
pub struct Hit {
    /// The high part of its draw: rows with a smaller one come first.
    pub draw: u16,
    pub place: Place,
}

/// How far the tests of a pair have come.
pub struct Tried {
    pub reach: Reach,
    /// Whether one of the rows that were hit last may have been in the pair's window.
    pub any_near: bool,
    /// All rows with a draw below this were tested.
    pub below: u16,
}

/// Which rows were hit for a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Nothing,
    /// About so many, those with the smallest draws.
    Lowest(usize),
    All,
}

/// Where the rows come from that are tested for the pairs of an anchor.
pub trait Source {
    /// Hits rows of a pair, all those with draws below some number that were not tested. Called again where they
    /// did not settle the pair. Returns false if there are no others, or none worth a test.
    fn hit(&mut self, open: &mut OpenPair, tried: &mut Tried, hits: &mut Vec<Hit>) -> Result<bool>;

    /// What is known of the distance of a row.
    fn bounds(&self, place: Place) -> Bounds;
}

/// Buffers of [`Search::test_hits`]: the hits of each pair in test.
pub type Hits = [Vec<Hit>; TOGETHER];

/// A pair in test.
struct Turn<'p> {
    open: &'p mut OpenPair,
    tried: Tried,
    /// Whether its hits are sorted, the one with the largest draw first.
    is_sorted: bool,
}

impl Search<'_> {
    /// Tests the hits of each pair in the order of their draws. A random pick ends with the first row that cannot
    /// change it.
    #[allow(clippy::too_many_arguments)] // the buffers of a thread, apart from each other
    pub fn test_hits(
        &self,
        anchor: Place,
        pairs: &mut [OpenPair],
        source: &mut impl Source,
        hits: &mut Hits,
        distances: &mut Distances,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        distances.restart(self.sets.candidates().len())?;
        let mut pairs = pairs.iter_mut();
        let mut turns: [Option<Turn<'_>>; TOGETHER] = [const { None }; TOGETHER];
        loop {
            interrupt.check()?;
            let (mut places, mut of_turns) = ([0; TOGETHER], [None; TOGETHER]);
            let mut count = 0;
            for ((turn, hits), of_turn) in turns.iter_mut().zip(&mut *hits).zip(&mut of_turns) {
                let Some(place) = self.next_to_test(turn, &mut pairs, source, hits, distances)? else {
                    continue;
                };
                let same = places[..count].iter().position(|&other| other == place);
                *of_turn = Some(same.unwrap_or(count));
                if same.is_none() {
                    places[count] = place;
                    count += 1;
                }
            }
            if count == 0 {
                return Ok(());
            }
            let found = self.distances(anchor, &places[..count], stats);
            for (turn, i) in turns.iter_mut().zip(of_turns) {
                let (Some(Turn { open, .. }), Some(i)) = (turn, i) else { continue };
                distances.keep(places[i], found[i]);
                self.offer(open, places[i], found[i])?;
            }
        }
    }

    /// The next row whose distance one of the pairs needs: the pair whose turn it is, or a pair after it.
    fn next_to_test<'p>(
        &self,
        turn: &mut Option<Turn<'p>>,
        pairs: &mut impl Iterator<Item = &'p mut OpenPair>,
        source: &mut impl Source,
        hits: &mut Vec<Hit>,
        distances: &Distances,
    ) -> Result<Option<Place>> {
        loop {
            if turn.is_none() {
                let Some(open) = pairs.next() else { return Ok(None) };
                let tried = Tried { reach: Reach::Nothing, any_near: false, below: open.tested_below };
                *turn = Some(Turn { open, tried, is_sorted: false });
            }
            let Some(Turn { open, tried, is_sorted }) = turn else { return Ok(None) };
            while let Some(Hit { place, .. }) = self.take_lowest(open, hits, *is_sorted) {
                if self.stage.by == By::Draw && !open.picked.wants(self.order_at_best(&open.pair, place)) {
                    break;
                }
                if open.window.may_hold(source.bounds(place)) {
                    tried.any_near = true;
                    match distances.known(place) {
                        Some(d_an) => self.offer(open, place, d_an)?,
                        None => return Ok(Some(place)),
                    }
                }
            }
            hits.clear();
            let is_settled = open.picked.last().is_some_and(|last| last.order.draw.high < tried.below);
            if self.stage.by == By::Draw && is_settled || !source.hit(open, tried, hits)? {
                *turn = None;
                continue;
            }
            tried.any_near = false;
            *is_sorted = hits.len() > MOST_UNSORTED;
            if *is_sorted {
                hits.sort_unstable_by(|x, y| self.by_draw(open, y, x));
            }
        }
    }

    /// Takes the hit with the smallest draw.
    fn take_lowest(&self, open: &OpenPair, hits: &mut Vec<Hit>, is_sorted: bool) -> Option<Hit> {
        if is_sorted {
            return hits.pop();
        }
        let lowest = (0..hits.len()).min_by(|&i, &j| self.by_draw(open, &hits[i], &hits[j]))?;
        Some(hits.swap_remove(lowest))
    }

    fn by_draw(&self, open: &OpenPair, x: &Hit, y: &Hit) -> std::cmp::Ordering {
        let order = |hit: &Hit| self.order_at_best(&open.pair, hit.place);
        x.draw.cmp(&y.draw).then_with(|| order(x).cmp(&order(y)))
    }

    /// Hits a row, unless it was tested before or would not be picked.
    pub fn hit(&self, open: &OpenPair, below: u16, place: Place, hits: &mut Vec<Hit>) -> Result<()> {
        let order = self.order_at_best(&open.pair, place);
        if order.draw.high >= below && open.picked.wants(order) {
            memory::push(hits, Hit { draw: order.draw.high, place }, THREADS)?;
        }
        Ok(())
    }
}
