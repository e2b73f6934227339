//! The two steps from rows to triplets.

use rayon::prelude::*;

use super::pairs::{Pair, pairs_of};
use super::picked::{Negative, Picked};
use super::points::{Place, Points};
use super::probe::{self, Hit};
use super::screen::{self, Precision, Screen, Window};
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
    let points = Points::new(input, options, isa)?;
    let miner = Miner { points: &points, options, isa };
    let mut found = Found::default();
    let mut screen = None;
    for anchors in rounds(&points) {
        let mut round = miner.open(&anchors, interrupt)?;
        if !round.open.is_empty() {
            let screen = match &screen {
                Some(screen) => screen,
                None => screen.insert(Screen::new(&points, precision(options.pick), isa, interrupt)?),
            };
            let open = std::mem::take(&mut round.open);
            round = round.and(miner.screen(open, screen, interrupt)?);
        }
        found = found.and(round);
    }
    found.triplets.par_sort_unstable_by_key(|t| (t.anchor, t.positive, t.negative));
    interrupt.check()?;
    Ok(found.with_ids(input, &points))
}

/// Anchors in rounds of about [`ROUND`] pairs.
fn rounds(points: &Points) -> Vec<Vec<Place>> {
    let mut rounds = vec![Vec::new()];
    let mut pairs = 0;
    for place in 0..points.len() as Place {
        if pairs > ROUND {
            rounds.push(Vec::new());
            pairs = 0;
        }
        rounds.last_mut().expect("there is always one").push(place);
        pairs += points.identity_run(place).len();
    }
    rounds
}

/// Random picks reach the screen where few rows qualify, and then most of those that pass need no
/// exact distance, because an earlier one had a smaller hash. The other picks look at all that pass.
fn precision(pick: Pick) -> Precision {
    match pick {
        Pick::Random => Precision::Coarse,
        Pick::Hardest | Pick::All => Precision::Fine,
    }
}

struct Miner<'a> {
    points: &'a Points,
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
                let mut hits = Vec::new();
                for &anchor in unit {
                    interrupt.check()?;
                    self.open_anchor(anchor, &mut found, &mut hits);
                }
                Ok(found)
            })
            .try_reduce(Found::default, |a, b| Ok(a.and(b)))
    }

    fn open_anchor(&self, anchor: Place, found: &mut Found, hits: &mut Vec<Hit>) {
        let capacity = match self.options.pick {
            Pick::Random | Pick::Hardest => self.options.negatives_per_pair,
            Pick::All => Picked::ALL,
        };
        let mut open = Vec::new();
        for pair in pairs_of(anchor, self.points, self.options, self.isa, &mut found.stats) {
            let mut pair =
                OpenPair { pair, picked: Picked::new(capacity), tested_below: 0, window: Window::EMPTY };
            if self.probe(anchor, &mut pair, hits, &mut found.stats) {
                found.settle(anchor, &pair, self.points);
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
    fn probe(&self, anchor: Place, open: &mut OpenPair, hits: &mut Vec<Hit>, stats: &mut Stats) -> bool {
        let key = open.pair.key;
        let tries = TRIES + 2 * self.options.negatives_per_pair;
        let (all, identity) = (self.points.len(), self.points.identity_run(anchor));
        let few = all - identity.len() <= tries;
        hits.clear();
        if few {
            hits.extend((0..identity.start).chain(identity.end..all as Place).map(|place| (0, place)));
        } else if self.options.pick == Pick::Random {
            open.tested_below = probe::threshold(tries, all);
            probe::below(self.isa, &self.points.codes_low, key as u32, open.tested_below, hits);
        }
        if self.options.pick == Pick::Random {
            hits.sort_unstable_by_key(|&(_, place)| hash::priority(key, self.points.codes[place as usize]));
        }
        for &(_, place) in hits.iter().filter(|(_, place)| !identity.contains(place)) {
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
            let priority = hash::priority(open.pair.key, self.points.codes[place as usize]);
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
    fn screen(&self, mut open: Vec<Open>, screen: &Screen<'_>, interrupt: &Interrupt) -> Result<Found> {
        let share = open.len().div_ceil(rayon::current_num_threads());
        open.par_chunks_mut(share.clamp(LEAST_BLOCK, screen::BLOCK))
            .map(|block| {
                let mut found = Found::default();
                let mut windows: Vec<Window> =
                    block.iter_mut().map(|open| self.open_window(open, screen)).collect();
                let anchors: Vec<Place> = block.iter().map(|open| open.anchor).collect();
                screen.sweep(&anchors, &mut windows, interrupt, |i, place, bounds, window| {
                    let open = &mut block[i];
                    if !self.points.identity_run(open.anchor).contains(&place)
                        && self.visit(open, place, bounds, screen, &mut found.stats)
                    {
                        *window = union(open);
                    }
                })?;
                for open in block {
                    for pair in &open.pairs {
                        found.settle(open.anchor, pair, self.points);
                    }
                }
                Ok(found)
            })
            .try_reduce(Found::default, |a, b| Ok(a.and(b)))
    }

    fn open_window(&self, open: &mut Open, screen: &Screen<'_>) -> Window {
        for pair in &mut open.pairs {
            let (above, below) = self.options.band.interval(pair.pair.d_ap, self.options.margin);
            pair.window = screen.window(open.anchor, above, below);
        }
        union(open)
    }

    /// Offers a row that the screen let through to each pair. Whether a window became narrower.
    fn visit(
        &self,
        open: &mut Open,
        place: Place,
        bounds: screen::Bounds,
        screen: &Screen<'_>,
        stats: &mut Stats,
    ) -> bool {
        let mut narrower = false;
        let mut distance = None;
        for pair in open.pairs.iter_mut().filter(|pair| pair.window.may_hold(bounds)) {
            if self.options.pick == Pick::Random {
                let priority = hash::priority(pair.pair.key, self.points.codes[place as usize]);
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
                let (above, below) = self.options.band.interval(pair.pair.d_ap, self.options.margin);
                pair.window = screen.window(open.anchor, above, below.min(last.d_an.next_up()));
                narrower = true;
            }
        }
        narrower
    }

    fn distance(&self, anchor: Place, negative: Place, stats: &mut Stats) -> f64 {
        stats.exact_distances += 1;
        exact::distance(self.isa, self.points.values(anchor), self.points.values(negative))
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

    fn settle(&mut self, anchor: Place, open: &OpenPair, points: &Points) {
        let rank = |place: Place| points.ranks[place as usize];
        if open.picked.negatives().is_empty() {
            self.stats.pairs_without_negative += 1;
        }
        self.triplets.extend(open.picked.negatives().iter().map(|negative| Triplet {
            anchor: rank(anchor),
            positive: rank(open.pair.positive),
            negative: rank(negative.place),
            d_ap: open.pair.d_ap,
            d_an: negative.d_an,
        }));
    }

    fn with_ids(self, input: &Input<'_>, points: &Points) -> Triplets {
        let mut id_of_rank = vec![0; points.len()];
        for (&rank, &row) in points.ranks.iter().zip(&points.rows) {
            id_of_rank[rank as usize] = input.ids.map_or(i64::from(row), |ids| ids[row as usize]);
        }
        let id = |rank: u32| id_of_rank[rank as usize];
        let triplets = &self.triplets;
        Triplets {
            anchor: triplets.iter().map(|t| id(t.anchor)).collect(),
            positive: triplets.iter().map(|t| id(t.positive)).collect(),
            negative: triplets.iter().map(|t| id(t.negative)).collect(),
            d_ap: triplets.iter().map(|t| t.d_ap).collect(),
            d_an: triplets.iter().map(|t| t.d_an).collect(),
            stats: self.stats,
        }
    }
}
