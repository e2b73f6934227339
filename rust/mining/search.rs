//! What both steps of the search for negatives share: the pairs that are not settled, the window of distances
//! of each, and the decision about a row.
//!
//! A row may be looked at three times, each more expensive than the one before: its draw, the screen's
//! bounds, and the float64 distance of [`exact`]. Only the last decides.

use std::ops::Range;

use rayon::prelude::*;

use super::found::Found;
use super::hash::{self, Draw};
use super::hits::{Hit, Hits};
use super::pairs::{Pair, pairs_of};
use super::picked::{By, Choice, Negative, Order, Picked, Stage};
use super::points::{Place, Sets};
use super::screen::{Nearest, Screen, Window};
use super::shortage::{PAIRS, Progress, THREADS};
use super::{Options, Ranks, Stats, exact, scan};
use crate::{Interrupt, Isa, Result, memory};

/// Rows that are tested for a random pick before the pair goes to the screen. A test costs some 150 cycles,
/// and the screen 50,000 per anchor (7,200 x 512). If one row in ten qualifies, 24 tests leave 8 % of the
/// pairs.
const TRIES: usize = 24;

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
    pub draws: Draws,
    /// A bit for each candidate, 32 per panel.
    pub panel_marks: Vec<u32>,
    /// Negatives of the current anchor that may be in the window of some pair.
    pub near: Vec<Place>,
    pub hits: Hits,
    pub distances: Distances,
    pub nearest: Nearest,
}

/// What some candidates draw, for the pairs of the current anchor.
#[derive(Default)]
pub struct Draws {
    anchor: Place,
    /// The first of the candidates.
    first: Place,
    /// Their spreads.
    pub spreads: Vec<u16>,
    /// Those with small draws.
    marks: Vec<scan::Word>,
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

    /// Computes the spreads of some candidates for an anchor.
    pub fn spread(&self, anchor: Place, among: Range<Place>, draws: &mut Draws) -> Result<()> {
        memory::resize(&mut draws.spreads, among.len(), 0, THREADS)?;
        (draws.anchor, draws.first) = (anchor, among.start);
        let hash = self.sets.anchors.hashes[anchor as usize];
        let others = &self.sets.candidates().hashes_low[among.start as usize..among.end as usize];
        hash::spreads(self.isa, hash, others, &mut draws.spreads);
        Ok(())
    }

    /// Hits about `tries` negatives among those that the draws are for, those with the smallest ones: without those
    /// that are below `tested`, that would not be picked, or that `keep` refuses. All further draws are not below what
    /// is returned.
    pub fn hit_lowest(
        &self,
        tries: usize,
        open: &OpenPair,
        tested: u16,
        keep: impl Fn(Place) -> bool,
        draws: &mut Draws,
        hits: &mut Vec<Hit>,
    ) -> Result<u16> {
        let Draws { anchor, first, spreads, marks } = draws;
        let own = self.sets.own_run(*anchor);
        let mut below = scan::threshold(tries, spreads.len());
        if let Some(last) = open.picked.last().filter(|_| self.stage.by == By::Draw) {
            below = below.min(last.order.draw.high.saturating_add(1));
        }
        scan::below(self.isa, spreads, open.pair.key, below, marks, |number| {
            let draw = open.pair.key.map_spread(spreads[number as usize]);
            let place = *first + number;
            if draw >= tested && !own.contains(&place) && keep(place) {
                memory::push(hits, Hit { draw, place }, THREADS)?;
            }
            Ok(())
        })?;
        Ok(below)
    }

    /// The draw of a row.
    fn draw(&self, pair: &Pair, place: Place) -> Draw {
        pair.key.draw(self.sets.candidates().hashes[place as usize])
    }

    /// Where a row may come among the negatives of a pair, whatever its distance is: not before this.
    pub fn order_at_best(&self, pair: &Pair, place: Place) -> Order {
        Order { key: 0, draw: self.draw(pair, place) }
    }

    /// The exact distance, on the metric's scale.
    pub fn distance(&self, anchor: Place, negative: Place, stats: &mut Stats) -> f64 {
        stats.exact_distances += 1;
        let (x, y) = (self.sets.anchors.values(anchor), self.sets.candidates().values(negative));
        self.options.metric.of_squared(exact::distance(self.isa, x, y))
    }

    /// Some exact distances, on the metric's scale: the first ones are those of the negatives.
    pub fn distances(&self, anchor: Place, negatives: &[Place], stats: &mut Stats) -> [f64; exact::TOGETHER] {
        stats.exact_distances += negatives.len() as u64;
        let (from, candidates) = (self.sets.anchors.values(anchor), self.sets.candidates());
        exact::some_distances(self.isa, from, negatives.len(), |i| candidates.values(negatives[i]))
            .map(|squared| self.options.metric.of_squared(squared))
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
