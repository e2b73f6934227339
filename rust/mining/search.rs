//! What both steps of the search for negatives share: the pairs that are not settled, the window of distances
//! of each, and the decision about a row.
//!
//! A row may be looked at three times, each more expensive than the one before: its draw, the screen's
//! bounds, and the float64 distance of [`exact`]. Only the last decides.

use std::ops::Range;

use rayon::prelude::*;

use super::found::Found;
use super::hash::{self, Draw};
use super::pairs::{Pair, pairs_of};
use super::picked::{By, Choice, Negative, Order, Picked, Stage};
use super::points::{Place, Sets};
use super::screen::{Bounds, Nearest, Screen, Window};
use super::shortage::{PAIRS, Progress, THREADS};
use super::{Options, Ranks, Stats, exact, scan};
use crate::{Interrupt, Isa, Result, memory};

/// Rows that are tested for a random pick before the pair goes to the screen. A test costs some 150 cycles,
/// and the screen 50,000 per anchor (7,200 x 512). If one row in ten qualifies, 24 tests leave 8 % of the
/// pairs.
const TRIES: usize = 24;

/// Up to this many hits, looking for the smallest one each time is faster than sorting them.
const MOST_UNSORTED: usize = 64;

/// What the search depends on.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    pub sets: &'a Sets,
    pub screen: &'a Screen<'a>,
    pub options: &'a Options,
    pub choice: &'a Choice,
    /// What it keeps.
    pub stage: Stage,
    pub part: Part,
    /// Whether the candidates are a part of the negatives, so that what is kept is all that may be chosen.
    pub in_part: bool,
    pub isa: Isa,
    /// Rows that are tested for a pair before its anchor goes to the screen.
    pub tries: usize,
    pub progress: &'a Progress,
}

/// Which stage of the search for a pair's negatives it is.
#[derive(Clone, Copy)]
pub enum Part {
    Only,
    /// The first of two.
    First {
        then: Stage,
    },
    Second,
}

/// An anchor with its pairs that are not settled yet.
pub struct OpenAnchor {
    pub anchor: Place,
    pub pairs: Vec<OpenPair>,
}

/// A pair, and what was found for it so far.
pub struct OpenPair {
    pub pair: Pair,
    pub picked: Picked,
    /// Where the distances of its negatives may be.
    pub window: Window,
    /// All rows with a draw below this were tested. 0: the pair has not drawn yet.
    pub tested_below: u16,
    /// Only negatives behind this are left, in the order of [`By::Distance`].
    pub after: Order,
}

/// Buffers that are reused from anchor to anchor.
#[derive(Default)]
pub struct Scratch {
    /// The spreads of all candidates for the current anchor.
    pub spreads: Vec<u16>,
    /// A bit for each candidate, 64 per word.
    draw_marks: Vec<u64>,
    /// A bit for each candidate, 32 per panel.
    pub panel_marks: Vec<u32>,
    /// Negatives of the current anchor that may be in the window of some pair.
    pub near: Vec<Place>,
    /// Rows to test for the current pair.
    pub hits: Vec<Hit>,
    pub distances: Distances,
    pub nearest: Nearest,
}

/// The exact distances from one anchor that were evaluated already: its pairs share them.
#[derive(Default)]
pub struct Distances {
    /// For each candidate the distance, and the number of the anchor that it was evaluated for.
    known: Vec<(f64, u32)>,
    /// Number of the current anchor, counted from 1.
    anchor: u32,
}

impl Distances {
    /// Begins with the next anchor, for which nothing is known.
    pub fn restart(&mut self, candidates: usize) -> Result<()> {
        memory::resize(&mut self.known, candidates, (0.0, 0), THREADS)?;
        self.anchor += 1;
        Ok(())
    }

    /// The distance to a candidate, if it was evaluated.
    pub fn known(&self, place: Place) -> Option<f64> {
        let (distance, anchor) = self.known[place as usize];
        (anchor == self.anchor).then_some(distance)
    }

    /// Keeps the distance to a candidate.
    pub fn keep(&mut self, place: Place, distance: f64) {
        self.known[place as usize] = (distance, self.anchor);
    }

    /// The distance to a candidate, which is evaluated if it was not.
    pub fn get_or_insert_with(&mut self, place: Place, evaluate: impl FnOnce() -> f64) -> f64 {
        self.known(place).unwrap_or_else(|| {
            let distance = evaluate();
            self.keep(place, distance);
            distance
        })
    }
}

/// A row to test.
pub struct Hit {
    /// The high part of its draw: rows with a smaller one come first.
    pub draw: u16,
    pub place: Place,
}

impl OpenAnchor {
    /// The smallest window that holds those of all pairs.
    pub fn window(&self) -> Window {
        self.pairs.iter().fold(Window::EMPTY, |window, pair| window.union(pair.window))
    }
}

/// Anchors whose pairs a thread lists at once.
const UNIT: usize = 16;

impl<'a> Search<'a> {
    /// The first stage, for these sets.
    pub fn new(
        sets: &'a Sets,
        screen: &'a Screen<'a>,
        (options, choice): (&'a Options, &'a Choice),
        in_part: bool,
        isa: Isa,
        progress: &'a Progress,
    ) -> Self {
        let (stage, then) = choice.stages();
        let part = then.map_or(Part::Only, |then| Part::First { then });
        let tries = tries(stage, sets);
        Self { sets, screen, options, choice, stage, part, in_part, isa, tries, progress }
    }

    /// The second stage, if there is one.
    pub fn second(&self) -> Option<Self> {
        match self.part {
            Part::First { then: stage } => {
                Some(Self { stage, part: Part::Second, tries: tries(stage, self.sets), ..*self })
            }
            Part::Only | Part::Second => None,
        }
    }

    /// The anchors among some rows that have pairs, with these.
    pub fn open(&self, rows: &Range<Place>, interrupt: &Interrupt) -> Result<Found> {
        self.progress.anchors(rows.len());
        let units = rows.len().div_ceil(UNIT);
        let unit = |number| {
            let mut found = Found::default();
            let first = rows.start + (number * UNIT) as Place;
            for anchor in (first..rows.end.min(first + UNIT as Place)).filter(|&row| self.sets.is_anchor(row))
            {
                interrupt.check()?;
                let pairs = pairs_of(anchor, self.sets, self.options, self.isa, &mut found.stats)?;
                if !pairs.is_empty() {
                    let pairs = memory::collect(pairs.into_iter().map(|pair| self.open_pair(pair)), PAIRS)?;
                    memory::push(&mut found.open, OpenAnchor { anchor, pairs }, PAIRS)?;
                }
            }
            Ok(found)
        };
        (0..units).into_par_iter().map(unit).try_reduce(Found::default, Found::join)
    }

    /// A pair for which nothing was found yet.
    fn open_pair(&self, pair: Pair) -> OpenPair {
        let (picked, after) = (Picked::new(self.stage), Order::default());
        let window = self.window(&pair, f64::NEG_INFINITY, f64::INFINITY);
        OpenPair { pair, picked, window, tested_below: 0, after }
    }

    /// A pair for the second stage, behind the last negative that the first one kept.
    pub fn open_behind(&self, pair: Pair, last: &Negative, then: Stage) -> OpenPair {
        let window = self.window(&pair, last.d_an, f64::INFINITY);
        OpenPair { pair, picked: Picked::new(then), window, tested_below: 0, after: last.order }
    }

    /// The window of a pair, between two distances, these included.
    pub fn window(&self, pair: &Pair, at_least: f64, at_most: f64) -> Window {
        let metric = self.options.metric;
        let (above, below) = self.options.band.interval(pair.d_ap);
        if above.next_up() >= below {
            return Window::EMPTY; // without a margin, or one that is lost in rounding
        }
        let (above, below) = (above.max(at_least.next_down()), below.min(at_most.next_up()));
        self.screen.window(metric.squared(above), metric.squared(below))
    }

    /// Computes the spreads of all candidates for an anchor.
    pub fn spread(&self, anchor: Place, scratch: &mut Scratch) -> Result<()> {
        memory::resize(&mut scratch.spreads, self.sets.candidates().len(), 0, THREADS)?;
        let hash = self.sets.anchors.hashes[anchor as usize];
        hash::spreads(self.isa, hash, &self.sets.candidates().hashes_low, &mut scratch.spreads);
        Ok(())
    }

    /// Hits about `tries` negatives: those with the smallest draws that were not tested yet, without the ones
    /// that `keep` refuses. The anchor's spreads must be there ([`Self::spread`]).
    pub fn hit_lowest(
        &self,
        tries: usize,
        anchor: Place,
        open: &mut OpenPair,
        scratch: &mut Scratch,
        keep: impl Fn(Place) -> bool,
    ) -> Result<()> {
        let identity = self.sets.identity_run(anchor);
        let below = scan::threshold(tries, self.sets.candidates().len());
        let Scratch { spreads, draw_marks, hits, .. } = scratch;
        hits.clear();
        scan::below(self.isa, spreads, open.pair.key, below, draw_marks, |place| {
            let draw = open.pair.key.map_spread(spreads[place as usize]);
            if draw >= open.tested_below && !identity.contains(&place) && keep(place) {
                memory::push(hits, Hit { draw, place }, THREADS)?;
            }
            Ok(())
        })?;
        open.tested_below = below;
        Ok(())
    }

    /// The draw of a row.
    fn draw(&self, pair: &Pair, place: Place) -> Draw {
        pair.key.draw(self.sets.candidates().hashes[place as usize])
    }

    /// Where a row may come among the negatives of a pair, whatever its distance is: not before this.
    pub fn order_at_best(&self, pair: &Pair, place: Place) -> Order {
        Order { key: 0, draw: self.draw(pair, place) }
    }

    /// Hits a row, unless it was tested before or would not be picked.
    pub fn hit(&self, pair: &OpenPair, place: Place, hits: &mut Vec<Hit>) -> Result<()> {
        let order = self.order_at_best(&pair.pair, place);
        if order.draw.high >= pair.tested_below && pair.picked.wants(order) {
            memory::push(hits, Hit { draw: order.draw.high, place }, THREADS)?;
        }
        Ok(())
    }

    /// Tests the hits in the order of their draws. A random pick ends with the first row that cannot change
    /// it.
    pub fn test(
        &self,
        anchor: Place,
        open: &mut OpenPair,
        bounds: impl Fn(Place) -> Bounds,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Result<()> {
        let Scratch { hits, distances, .. } = scratch;
        let pair = open.pair;
        let by_draw = |x: &Hit, y: &Hit| {
            let order = |hit: &Hit| self.draw(&pair, hit.place);
            x.draw.cmp(&y.draw).then_with(|| order(x).cmp(&order(y)))
        };
        // Usually the first or the second row is picked: no need to sort them all.
        let sorted = hits.len() > MOST_UNSORTED;
        if sorted {
            hits.sort_unstable_by(|x, y| by_draw(y, x));
        }
        let next = |hits: &mut Vec<Hit>| {
            if sorted {
                hits.pop()
            } else {
                (0..hits.len()).min_by(|&i, &j| by_draw(&hits[i], &hits[j])).map(|i| hits.swap_remove(i))
            }
        };
        while let Some(Hit { place, .. }) = next(hits) {
            if self.stage.by == By::Draw && !open.picked.wants(self.order_at_best(&open.pair, place)) {
                break;
            }
            if open.window.may_hold(bounds(place)) {
                let d_an = distances.get_or_insert_with(place, || self.distance(anchor, place, stats));
                self.offer(open, place, d_an)?;
            }
        }
        Ok(())
    }

    /// The exact distance, on the metric's scale.
    pub fn distance(&self, anchor: Place, negative: Place, stats: &mut Stats) -> f64 {
        stats.exact_distances += 1;
        let (x, y) = (self.sets.anchors.values(anchor), self.sets.candidates().values(negative));
        self.options.metric.of_squared(exact::distance(self.isa, x, y))
    }

    /// Some exact distances, on the metric's scale.
    pub fn distances(
        &self,
        anchor: Place,
        negatives: [Place; exact::TOGETHER],
        stats: &mut Stats,
    ) -> [f64; exact::TOGETHER] {
        stats.exact_distances += exact::TOGETHER as u64;
        let others = negatives.map(|place| self.sets.candidates().values(place));
        let squared = exact::distances(self.isa, self.sets.anchors.values(anchor), others);
        squared.map(|squared| self.options.metric.of_squared(squared))
    }

    /// Adds a negative to those picked for a pair if it qualifies.
    pub fn offer(&self, open: &mut OpenPair, place: Place, d_an: f64) -> Result<()> {
        let (above, below) = self.options.band.interval(open.pair.d_ap);
        if !(above < d_an && d_an < below) {
            return Ok(());
        }
        let draw = || self.draw(&open.pair, place);
        if matches!(self.part, Part::Second) && self.choice.order(By::Distance, draw(), d_an) <= open.after {
            return Ok(());
        }
        let order = match self.stage.by {
            // To draw takes 5 % of the time.
            By::Nothing if self.options.ranks == Ranks::ALL => Order::default(),
            by => self.choice.order(by, draw(), d_an),
        };
        open.picked.offer(Negative { order, place, d_an })
    }
}

/// Rows that are tested for a random pick before the pair goes to the screen.
fn tries(stage: Stage, sets: &Sets) -> usize {
    match stage.by {
        By::Nothing => TRIES,
        By::Draw | By::Distance | By::Weight => TRIES + 2 * stage.most.min(sets.candidates().len()),
    }
}
