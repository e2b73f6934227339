//! The search for the negatives of one pair: which rows are looked at, in which order, how closely.
//!
//! Three looks, each dearer than the one before: the draw, the screen's estimate, the float64 distance of
//! [`exact`]. Only the last decides.

use super::hash;
use super::pairs::Pair;
use super::picked::{Negative, Order, Picked};
use super::points::{Place, Sets};
use super::screen::{Block, Bounds, Edges, Row, Screen, Window};
use super::{Options, Pick, Stats, exact, probe};
use crate::{Interrupt, Isa, Result};

/// Rows that are tried for a random pick before the pair goes to the screen. A test costs some 150
/// cycles, an anchor's row of the screen 50,000 (7,200 x 512): with one row in ten qualifying, 24 leave 8 %
/// of the pairs.
const TRIES: usize = 24;

/// How many times as many are tried once the anchor's distances are estimated, and a look costs little.
const MORE: usize = 10;

/// Up to so many hits, looking for the smallest each time is faster than to sort them.
const FEW_HITS: usize = 64;

/// Up to so many negatives that may lie in the window of any pair of an anchor, each pair goes through these;
/// of more, it draws first.
const FEW_NEAR: usize = 128;

/// What all searches share.
pub struct Search<'a> {
    pub sets: &'a Sets,
    pub screen: &'a Screen<'a>,
    pub options: &'a Options,
    pub isa: Isa,
    /// Rows that are tried.
    tries: usize,
}

/// An anchor with the pairs that are not settled yet.
pub struct Open {
    pub anchor: Place,
    pub pairs: Vec<OpenPair>,
}

/// A pair, and what was found for it so far.
pub struct OpenPair {
    pub pair: Pair,
    pub picked: Picked,
    /// Where its negatives may lie.
    window: Window,
    /// Rows that draw below this were tested.
    tested_below: u16,
}

/// Memory that is used again.
#[derive(Default)]
pub struct Scratch {
    spreads: Vec<u16>,
    marks: Vec<u64>,
    panel_marks: Vec<u32>,
    /// Negatives that may lie in the window of some pair.
    near: Vec<Place>,
    hits: Vec<Hit>,
    distances: Distances,
}

/// Exact distances from one anchor that were evaluated already: its pairs share them.
#[derive(Default)]
struct Distances {
    /// The distance to each candidate, and for which anchor, in order of use, it was evaluated.
    known: Vec<(f64, u32)>,
    anchor: u32,
}

impl Distances {
    /// Forgets those of the last anchor.
    fn restart(&mut self, candidates: usize) {
        self.known.resize(candidates, (0.0, 0));
        self.anchor += 1;
    }

    fn get_or_insert_with(&mut self, place: Place, evaluate: impl FnOnce() -> f64) -> f64 {
        let known = &mut self.known[place as usize];
        if known.1 != self.anchor {
            *known = (evaluate(), self.anchor);
        }
        known.0
    }
}

/// A row to look at, before which come all with a smaller draw.
struct Hit {
    draw: u16,
    place: Place,
}

impl OpenPair {
    /// Whether no distance at all can qualify.
    pub fn is_hopeless(&self) -> bool {
        self.window.is_empty()
    }
}

impl<'a> Search<'a> {
    /// For these sets.
    pub fn new(sets: &'a Sets, screen: &'a Screen<'a>, options: &'a Options, isa: Isa) -> Self {
        Self { sets, screen, options, isa, tries: TRIES + options.negatives_per_pair.saturating_mul(2) }
    }

    /// A pair that nothing was found for yet.
    pub fn open(&self, pair: Pair) -> OpenPair {
        let capacity = match self.options.pick {
            Pick::Random | Pick::Hardest => self.options.negatives_per_pair,
            Pick::All => Picked::ALL,
        };
        let window = self.window(&pair, f64::INFINITY);
        OpenPair { pair, picked: Picked::new(capacity), window, tested_below: 0 }
    }

    /// Tests a few negatives of each pair: all where there are no more than that, for a random pick those
    /// with the smallest draws. Pairs that this settles come first then; returns how many these are.
    pub fn probe(
        &self,
        anchor: Place,
        pairs: &mut [OpenPair],
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> usize {
        let identity = self.sets.identity_run(anchor);
        let all = self.sets.candidates().len();
        let few = all - identity.len() <= self.tries;
        if pairs.is_empty() || !few && self.options.pick != Pick::Random {
            return 0;
        }
        if !few {
            self.spread(anchor, scratch);
        }
        scratch.distances.restart(all);
        let mut settled = 0;
        for i in 0..pairs.len() {
            let open = &mut pairs[i];
            if few {
                let others = (0..identity.start).chain(identity.end..all as Place);
                scratch.hits.clear();
                scratch
                    .hits
                    .extend(others.map(|place| Hit { draw: self.order(&open.pair, place).1.draw, place }));
            } else {
                self.draw(self.tries, anchor, open, scratch, |_| true);
            }
            self.test(anchor, open, |place| self.screen.bounds(anchor, place), scratch, stats);
            if few || open.picked.is_full() {
                pairs.swap(i, settled);
                settled += 1;
            } else if self.screen.is_one_stretch() {
                // All distances from this anchor will be estimated: the other pairs are better tried then.
                break;
            }
        }
        settled
    }

    /// Goes through a stretch of candidates for a block of anchors.
    pub fn sweep(
        &self,
        open: &mut [Open],
        block: &Block<'_>,
        scratch: &mut Scratch,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        if self.options.pick == Pick::Random {
            for (i, open) in open.iter_mut().enumerate() {
                self.sweep_by_draw(open, &block.row(i), scratch, interrupt, stats)?;
            }
            return Ok(());
        }
        // Panel by panel: the rows of a panel are looked at by many anchors, and then still in L2.
        let mut edges: Vec<Edges> =
            open.iter().enumerate().map(|(i, open)| block.row(i).edges(open.window())).collect();
        for panel in block.panels() {
            interrupt.check()?;
            for (i, (open, edges)) in open.iter_mut().zip(&mut edges).enumerate() {
                let row = block.row(i);
                let mut narrower = false;
                row.visit_panel(panel, edges, |place| narrower |= self.visit(open, &row, place, stats));
                if narrower {
                    *edges = row.edges(open.window());
                }
            }
        }
        Ok(())
    }

    /// Offers a row that may lie in the window of some pair to each. Whether a window became narrower.
    fn visit(&self, open: &mut Open, row: &Row<'_>, place: Place, stats: &mut Stats) -> bool {
        if self.sets.identity_run(open.anchor).contains(&place) {
            return false;
        }
        let bounds = row.bounds(place);
        let mut distance = None;
        let mut narrower = false;
        for pair in open.pairs.iter_mut().filter(|pair| pair.window.may_hold(bounds)) {
            let d_an = *distance.get_or_insert_with(|| self.distance(open.anchor, place, stats));
            self.offer(&pair.pair, &mut pair.picked, place, d_an);
            if self.options.pick == Pick::Hardest
                && let Some(last) = pair.picked.last()
            {
                let window = self.window(&pair.pair, last.d_an);
                narrower |= window.is_narrower_than(pair.window);
                pair.window = window;
            }
        }
        narrower
    }

    /// Of a stretch, only rows with smaller draws than those picked already are decided.
    fn sweep_by_draw(
        &self,
        open: &mut Open,
        row: &Row<'_>,
        scratch: &mut Scratch,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        let anchor = open.anchor;
        let identity = self.sets.identity_run(anchor);
        let Scratch { panel_marks, near, .. } = &mut *scratch;
        near.clear();
        let few = row.mark(open.window(), panel_marks) <= FEW_NEAR + identity.len();
        if few {
            row.visit(panel_marks, |place| {
                if !identity.contains(&place) {
                    near.push(place);
                }
            });
            if near.is_empty() {
                return Ok(());
            }
        }
        let by_draw = !few && self.screen.is_one_stretch();
        if by_draw {
            self.spread(anchor, scratch);
        }
        scratch.distances.restart(self.sets.candidates().len());
        for pair in &mut open.pairs {
            interrupt.check()?;
            let edges = row.edges(pair.window);
            if by_draw && pair.tested_below == 0 {
                // Where none of the first is in the window, few of all are: better to find these at once.
                for tries in [self.tries, MORE * self.tries] {
                    self.draw(tries, anchor, pair, scratch, |place| row.may_hold(&edges, place));
                    let found = !scratch.hits.is_empty();
                    self.test(anchor, pair, |place| row.bounds(place), scratch, stats);
                    if pair.picked.is_full() || !found {
                        break;
                    }
                }
                if pair.picked.is_full() {
                    continue;
                }
            }
            let Scratch { panel_marks, near, hits, .. } = &mut *scratch;
            hits.clear();
            let mut hit = |place| {
                let order = self.order(&pair.pair, place);
                if order.1.draw >= pair.tested_below && pair.picked.wants(order) {
                    hits.push(Hit { draw: order.1.draw, place });
                }
            };
            if few {
                near.iter().copied().filter(|&place| row.may_hold(&edges, place)).for_each(hit);
            } else {
                row.mark(pair.window, panel_marks);
                row.visit(panel_marks, |place| {
                    if !identity.contains(&place) {
                        hit(place);
                    }
                });
            }
            self.test(anchor, pair, |place| row.bounds(place), scratch, stats);
        }
        Ok(())
    }

    fn spread(&self, anchor: Place, scratch: &mut Scratch) {
        scratch.spreads.resize(self.sets.candidates().len(), 0);
        let code = self.sets.anchors.codes[anchor as usize];
        hash::spreads(self.isa, code, &self.sets.candidates().codes_low, &mut scratch.spreads);
    }

    /// Finds about so many negatives with the smallest draws, of those that were not tested and that are
    /// to be kept, after [`Self::spread`].
    fn draw(
        &self,
        tries: usize,
        anchor: Place,
        open: &mut OpenPair,
        scratch: &mut Scratch,
        keep: impl Fn(Place) -> bool,
    ) {
        let identity = self.sets.identity_run(anchor);
        let below = probe::threshold(tries, self.sets.candidates().len());
        let Scratch { spreads, marks, hits, .. } = scratch;
        hits.clear();
        probe::below(self.isa, spreads, open.pair.key, below, marks, |place| {
            let draw = open.pair.key.draw(spreads[place as usize]);
            if draw >= open.tested_below && !identity.contains(&place) && keep(place) {
                hits.push(Hit { draw, place });
            }
        });
        open.tested_below = below;
    }

    /// Where a row comes among the negatives of a pair, for a pick that goes by draws.
    fn order(&self, pair: &Pair, place: Place) -> Order {
        (0, pair.key.order(self.sets.candidates().codes[place as usize]))
    }

    /// Decides rows in the order of their draws, where the pick goes by draws until no other is wanted.
    fn test(
        &self,
        anchor: Place,
        open: &mut OpenPair,
        look: impl Fn(Place) -> Bounds,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) {
        let Scratch { hits, distances, .. } = scratch;
        let by_draw = |x: &Hit, y: &Hit| {
            let order = |hit: &Hit| self.order(&open.pair, hit.place);
            x.draw.cmp(&y.draw).then_with(|| order(x).cmp(&order(y)))
        };
        // Mostly the first or the second is it: no need to sort them all.
        let (picked, few) = (&mut open.picked, hits.len() <= FEW_HITS);
        if !few {
            hits.sort_unstable_by(|x, y| by_draw(y, x));
        }
        let next = |hits: &mut Vec<Hit>| {
            if few {
                (0..hits.len()).min_by(|&i, &j| by_draw(&hits[i], &hits[j])).map(|at| hits.swap_remove(at))
            } else {
                hits.pop()
            }
        };
        while let Some(Hit { place, .. }) = next(hits) {
            if self.options.pick == Pick::Random && !picked.wants(self.order(&open.pair, place)) {
                break;
            }
            if open.window.may_hold(look(place)) {
                let d_an = distances.get_or_insert_with(place, || self.distance(anchor, place, stats));
                self.offer(&open.pair, picked, place, d_an);
            }
        }
    }

    fn distance(&self, anchor: Place, negative: Place, stats: &mut Stats) -> f64 {
        stats.exact_distances += 1;
        let (x, y) = (self.sets.anchors.values(anchor), self.sets.candidates().values(negative));
        self.options.metric.of_squared(exact::distance(self.isa, x, y))
    }

    /// Adds a negative to those picked for a pair if it qualifies.
    fn offer(&self, pair: &Pair, picked: &mut Picked, place: Place, d_an: f64) {
        let (above, below) = self.options.band.interval(pair.d_ap, self.options.margin);
        if above < d_an && d_an < below {
            let mut order = self.order(pair, place);
            if self.options.pick == Pick::Hardest {
                order.0 = d_an.to_bits(); // of a float64 that is not negative, bits ascend as it does
            }
            picked.offer(Negative { order, place, d_an });
        }
    }

    /// The window of a pair, up to a distance.
    fn window(&self, pair: &Pair, at_most: f64) -> Window {
        let metric = self.options.metric;
        let (above, below) = self.options.band.interval(pair.d_ap, self.options.margin);
        if above.next_up() >= below {
            return Window::EMPTY; // without a margin, or one that is lost in rounding
        }
        self.screen.window(metric.squared(above), metric.squared(below.min(at_most.next_up())))
    }
}

impl Open {
    /// The window that holds those of all pairs.
    fn window(&self) -> Window {
        self.pairs.iter().fold(Window::EMPTY, |window, pair| window.union(pair.window))
    }
}
