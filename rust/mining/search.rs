//! What both steps of the search for negatives share: the pairs that are not settled, the window of distances
//! of each, and the decision about a row.
//!
//! A row may be looked at three times, each more expensive than the one before: its draw, the screen's
//! bounds, and the float64 distance of [`exact`]. Only the last decides.

use super::hash;
use super::pairs::Pair;
use super::picked::{Negative, Order, Picked};
use super::points::{Place, Sets};
use super::screen::{Bounds, Nearest, Screen, Window};
use super::shortage::{PAIRS, Progress, THREADS};
use super::{Options, Pick, Stats, exact, scan};
use crate::{Isa, Result, memory};

/// Rows that are tested for a random pick before the pair goes to the screen. A test costs some 150 cycles,
/// and the screen 50,000 per anchor (7,200 x 512). If one row in ten qualifies, 24 tests leave 8 % of the
/// pairs.
const TRIES: usize = 24;

/// Up to this many hits, looking for the smallest one each time is faster than sorting them.
const MOST_UNSORTED: usize = 64;

/// What the search depends on.
pub struct Search<'a> {
    pub sets: &'a Sets,
    pub screen: &'a Screen<'a>,
    pub options: &'a Options,
    pub isa: Isa,
    /// Rows that are tested for a pair before its anchor goes to the screen.
    pub tries: usize,
    pub progress: &'a Progress,
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
}

/// Buffers that are reused from anchor to anchor.
#[derive(Default)]
pub struct Scratch {
    /// The spreads of all candidates for the current anchor.
    spreads: Vec<u16>,
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

    fn get_or_insert_with(&mut self, place: Place, evaluate: impl FnOnce() -> f64) -> f64 {
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

impl<'a> Search<'a> {
    /// For these sets.
    pub fn new(
        sets: &'a Sets,
        screen: &'a Screen<'a>,
        options: &'a Options,
        isa: Isa,
        progress: &'a Progress,
    ) -> Self {
        let most = options.negatives_per_pair.min(sets.candidates().len());
        Self { sets, screen, options, isa, tries: TRIES + 2 * most, progress }
    }

    /// The pairs, for which nothing was found yet.
    pub fn open_all(&self, pairs: Vec<Pair>) -> Result<Vec<OpenPair>> {
        memory::collect(pairs.into_iter().map(|pair| self.open(pair)), PAIRS)
    }

    fn open(&self, pair: Pair) -> OpenPair {
        let capacity = match self.options.pick {
            Pick::Random | Pick::Hardest => self.options.negatives_per_pair,
            Pick::All => Picked::ALL,
        };
        let window = self.window(&pair, f64::INFINITY);
        OpenPair { pair, picked: Picked::new(capacity), window, tested_below: 0 }
    }

    /// The window of a pair, up to a distance.
    pub fn window(&self, pair: &Pair, at_most: f64) -> Window {
        let metric = self.options.metric;
        let (above, below) = self.options.band.interval(pair.d_ap, self.options.margin);
        if above.next_up() >= below {
            return Window::EMPTY; // without a margin, or one that is lost in rounding
        }
        self.screen.window(metric.squared(above), metric.squared(below.min(at_most.next_up())))
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

    /// Where a row comes among the negatives of a pair, unless the pick is the hardest.
    pub fn order(&self, pair: &Pair, place: Place) -> Order {
        Order { distance: 0, draw: pair.key.draw(self.sets.candidates().hashes[place as usize]) }
    }

    /// Hits a row, unless it was tested before or would not be picked.
    pub fn hit(&self, pair: &OpenPair, place: Place, hits: &mut Vec<Hit>) -> Result<()> {
        let order = self.order(&pair.pair, place);
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
        let by_draw = |x: &Hit, y: &Hit| {
            let order = |hit: &Hit| self.order(&open.pair, hit.place);
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
        let picked = &mut open.picked;
        while let Some(Hit { place, .. }) = next(hits) {
            if self.options.pick == Pick::Random && !picked.wants(self.order(&open.pair, place)) {
                break;
            }
            if open.window.may_hold(bounds(place)) {
                let d_an = distances.get_or_insert_with(place, || self.distance(anchor, place, stats));
                self.offer(&open.pair, picked, place, d_an)?;
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
    pub fn offer(&self, pair: &Pair, picked: &mut Picked, place: Place, d_an: f64) -> Result<()> {
        let (above, below) = self.options.band.interval(pair.d_ap, self.options.margin);
        if !(above < d_an && d_an < below) {
            return Ok(());
        }
        let order = match self.options.pick {
            Pick::Random => self.order(pair, place),
            // Bits are in the order of the distances, which are not negative.
            Pick::Hardest => Order { distance: d_an.to_bits(), ..self.order(pair, place) },
            Pick::All => Order::default(), // all are kept: to draw takes 5 % of the time
        };
        picked.offer(Negative { order, place, d_an })
    }
}
