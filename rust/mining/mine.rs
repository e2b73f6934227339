//! The two steps from rows to triplets.

use rayon::prelude::*;

use super::pairs::{Pair, pairs_of};
use super::picked::{Negative, Picked};
use super::points::{Place, Sets};
use super::probe::{self, Hit};
use super::screen::{self, Screen, Window};
use super::{Input, Isa, Options, Pick, Stats, Triplets, exact, hash};
use crate::{Interrupt, Result};

/// Pairs that go through both steps together: what is kept between the two is at most 20 MB.
const ROUND: usize = 1 << 18;

/// Anchors in one unit of work of the first step.
const UNIT: usize = 8;

/// Fewest anchors in one unit of work of the second step: the rows of the largest register tile.
const LEAST_BLOCK: usize = 12;

/// Rows that are tried for a random pick before the pair goes to the screen. A test costs 250
/// cycles, a share in the screen some 50,000: with one row in ten qualifying, 24 leave 8 % of the
/// pairs; with none qualifying they add a tenth to the time.
const TRIES: usize = 24;

/// Mines on the current rayon pool. Triplets come in ascending order of their ids.
pub fn mine(input: &Input<'_>, options: &Options, interrupt: &Interrupt) -> Result<Triplets> {
    input.check()?;
    let isa = Isa::choose()?;
    let sets = Sets::new(input, options, isa, interrupt)?;
    let screen = Screen::new(&sets, isa, interrupt)?;
    let miner = Miner { sets: &sets, screen: &screen, options, isa };
    let mut found = Found::default();
    for anchors in rounds(&sets) {
        let mut round = miner.open(&anchors, interrupt)?;
        let open = std::mem::take(&mut round.open);
        found = found.and(round).and(miner.screen(open, interrupt)?);
    }
    found.triplets.par_sort_unstable_by_key(|t| (t.anchor, t.positive, t.negative));
    interrupt.check()?;
    Ok(found.with_ids(&sets))
}

/// Anchors in rounds of about [`ROUND`] pairs.
fn rounds(sets: &Sets) -> Vec<Vec<Place>> {
    let mut rounds = vec![Vec::new()];
    let mut pairs = 0;
    for place in 0..sets.anchors.len() as Place {
        if pairs > ROUND {
            rounds.push(Vec::new());
            pairs = 0;
        }
        rounds.last_mut().expect("there is always one").push(place);
        pairs += sets.identity_run(place).len();
    }
    rounds
}

struct Miner<'a> {
    sets: &'a Sets,
    screen: &'a Screen<'a>,
    options: &'a Options,
    isa: Isa,
}

/// An anchor with the pairs that are not settled yet.
struct Open {
    anchor: Place,
    pairs: Vec<OpenPair>,
}

struct OpenPair {
    pair: Pair,
    picked: Picked,
    /// Rows whose low hash is below this were tested already.
    tested_below: u32,
    window: Window,
}

/// A triplet of ranks: positions among all ids in ascending order.
struct Triplet {
    anchor: u32,
    positive: u32,
    negative: u32,
    d_ap: f64,
    d_an: f64,
}

/// Memory of the first step that is used again.
#[derive(Default)]
struct Scratch {
    marks: Vec<u64>,
    hits: Vec<Hit>,
}

#[derive(Default)]
struct Found {
    triplets: Vec<Triplet>,
    open: Vec<Open>,
    stats: Stats,
}

impl Miner<'_> {
    /// First step: finds the pairs of the anchors and settles what the probe can settle.
    fn open(&self, anchors: &[Place], interrupt: &Interrupt) -> Result<Found> {
        anchors
            .par_chunks(UNIT)
            .map(|unit| {
                let mut found = Found::default();
                let mut scratch = Scratch::default();
                for &anchor in unit {
                    interrupt.check()?;
                    self.open_anchor(anchor, &mut found, &mut scratch);
                }
                Ok(found)
            })
            .try_reduce(Found::default, |a, b| Ok(a.and(b)))
    }

    fn open_anchor(&self, anchor: Place, found: &mut Found, scratch: &mut Scratch) {
        let capacity = match self.options.pick {
            Pick::Random | Pick::Hardest => self.options.negatives_per_pair,
            Pick::All => Picked::ALL,
        };
        let mut open = Vec::new();
        for pair in pairs_of(anchor, self.sets, self.options, self.isa, &mut found.stats) {
            let window = self.window(&pair, f64::INFINITY);
            let mut pair = OpenPair { pair, picked: Picked::new(capacity), tested_below: 0, window };
            if self.probe(anchor, &mut pair, scratch, &mut found.stats) {
                found.settle(anchor, &pair, self.sets);
            } else {
                open.push(pair);
            }
        }
        if !open.is_empty() {
            found.stats.pairs_screened += open.len() as u64;
            found.open.push(Open { anchor, pairs: open });
        }
    }

    /// Tests a few negatives: all where there are no more than that, for a random pick those with the
    /// smallest hashes. Whether that settles the pair.
    fn probe(&self, anchor: Place, open: &mut OpenPair, scratch: &mut Scratch, stats: &mut Stats) -> bool {
        let key = open.pair.key;
        let tries = TRIES + 2 * self.options.negatives_per_pair;
        let candidates = self.sets.candidates();
        let (all, identity) = (candidates.len(), self.sets.identity_run(anchor));
        let few = all - identity.len() <= tries;
        let hits = &mut scratch.hits;
        hits.clear();
        if few {
            let others = (0..identity.start).chain(identity.end..all as Place);
            hits.extend(others.map(|place| Hit { hash: 0, place }));
        } else if self.options.pick == Pick::Random {
            open.tested_below = probe::threshold(tries, all);
            probe::below(
                self.isa,
                &candidates.folded_codes,
                key as u32,
                open.tested_below,
                &mut scratch.marks,
                hits,
            );
            hits.retain(|hit| !identity.contains(&hit.place));
        }
        let priority = |hit: Hit| hash::priority(key, candidates.codes[hit.place as usize]);
        // The smallest first. Mostly the first or second settles the pair: no need to sort them all.
        while let Some(next) = (0..hits.len()).min_by(|&i, &j| {
            let (x, y) = (hits[i], hits[j]);
            x.hash.cmp(&y.hash).then_with(|| priority(x).cmp(&priority(y)))
        }) {
            let place = hits.swap_remove(next).place;
            if !open.window.may_hold(self.screen.bounds(anchor, place)) {
                continue;
            }
            let d_an = self.distance(anchor, place, stats);
            self.offer(open, place, d_an);
            if self.options.pick == Pick::Random && open.picked.is_full() {
                return true;
            }
        }
        few
    }

    /// Adds a negative to those picked for a pair if it qualifies. Whether it does.
    fn offer(&self, open: &mut OpenPair, place: Place, d_an: f64) -> bool {
        let (above, below) = self.options.band.interval(open.pair.d_ap, self.options.margin);
        let qualifies = above < d_an && d_an < below;
        if qualifies {
            let priority = hash::priority(open.pair.key, self.sets.candidates().codes[place as usize]);
            let order = match self.options.pick {
                Pick::Random | Pick::All => (priority, 0),
                // Bits of a float64 that is not negative ascend as it does.
                Pick::Hardest => (d_an.to_bits(), priority),
            };
            open.picked.offer(Negative { order, place, d_an });
        }
        qualifies
    }

    /// Second step: settles the rest with the screen.
    fn screen(&self, mut open: Vec<Open>, interrupt: &Interrupt) -> Result<Found> {
        let share = open.len().div_ceil(rayon::current_num_threads());
        open.par_chunks_mut(share.clamp(LEAST_BLOCK, screen::BLOCK))
            .map(|block| {
                let mut found = Found::default();
                let mut windows: Vec<Window> = block.iter().map(union).collect();
                let anchors: Vec<Place> = block.iter().map(|open| open.anchor).collect();
                self.screen.sweep(&anchors, &mut windows, interrupt, |i, place, bounds, window| {
                    let open = &mut block[i];
                    if !self.sets.identity_run(open.anchor).contains(&place)
                        && self.visit(open, place, bounds, &mut found.stats)
                    {
                        *window = union(open);
                    }
                })?;
                for open in block {
                    for pair in &open.pairs {
                        found.settle(open.anchor, pair, self.sets);
                    }
                }
                Ok(found)
            })
            .try_reduce(Found::default, |a, b| Ok(a.and(b)))
    }

    /// The window of a pair, up to a distance.
    fn window(&self, pair: &Pair, at_most: f64) -> Window {
        let metric = self.options.metric;
        let (above, below) = self.options.band.interval(pair.d_ap, self.options.margin);
        self.screen.window(metric.squared(above), metric.squared(below.min(at_most.next_up())))
    }

    /// Offers a row that the screen let through to each pair. Whether a window became narrower.
    fn visit(&self, open: &mut Open, place: Place, bounds: screen::Bounds, stats: &mut Stats) -> bool {
        let mut narrower = false;
        let mut distance = None;
        for pair in open.pairs.iter_mut().filter(|pair| pair.window.may_hold(bounds)) {
            if self.options.pick == Pick::Random {
                let priority = hash::priority(pair.pair.key, self.sets.candidates().codes[place as usize]);
                let tested = (priority >> 32) < u64::from(pair.tested_below);
                if tested || !pair.picked.wants((priority, 0)) {
                    continue;
                }
            }
            let d_an = *distance.get_or_insert_with(|| self.distance(open.anchor, place, stats));
            if self.offer(pair, place, d_an)
                && self.options.pick == Pick::Hardest
                && let Some(last) = pair.picked.last()
            {
                pair.window = self.window(&pair.pair, last.d_an);
                narrower = true;
            }
        }
        narrower
    }

    fn distance(&self, anchor: Place, negative: Place, stats: &mut Stats) -> f64 {
        stats.exact_distances += 1;
        let (x, y) = (self.sets.anchors.values(anchor), self.sets.candidates().values(negative));
        self.options.metric.of_squared(exact::distance(self.isa, x, y))
    }
}

/// The window that holds those of all pairs.
fn union(open: &Open) -> Window {
    open.pairs.iter().fold(Window::EMPTY, |window, pair| window.union(pair.window))
}

impl Found {
    fn and(mut self, mut other: Self) -> Self {
        self.triplets.append(&mut other.triplets);
        self.open.append(&mut other.open);
        self.stats.add(other.stats);
        self
    }

    fn settle(&mut self, anchor: Place, open: &OpenPair, sets: &Sets) {
        let rank = |place: Place| sets.candidates().ranks[place as usize];
        if open.picked.negatives().is_empty() {
            self.stats.pairs_without_negative += 1;
        }
        self.triplets.extend(open.picked.negatives().iter().map(|negative| Triplet {
            anchor: sets.anchors.ranks[anchor as usize],
            positive: rank(open.pair.positive),
            negative: rank(negative.place),
            d_ap: open.pair.d_ap,
            d_an: negative.d_an,
        }));
    }

    fn with_ids(self, sets: &Sets) -> Triplets {
        let (anchors, candidates) = (sets.anchors.ids_by_rank(), sets.candidates().ids_by_rank());
        let triplets = &self.triplets;
        Triplets {
            anchor: triplets.iter().map(|t| anchors[t.anchor as usize]).collect(),
            positive: triplets.iter().map(|t| candidates[t.positive as usize]).collect(),
            negative: triplets.iter().map(|t| candidates[t.negative as usize]).collect(),
            d_ap: triplets.iter().map(|t| t.d_ap).collect(),
            d_an: triplets.iter().map(|t| t.d_an).collect(),
            stats: self.stats,
        }
    }
}
