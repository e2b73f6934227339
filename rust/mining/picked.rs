//! What is kept of the negatives that qualify for a pair.
//!
//! A search has one or two *stages*. A stage keeps the first of the negatives in some order, as many as it is
//! told. What is kept of two parts of the negatives is enough to tell what is kept of both: for the part with the
//! nearest `ranks.first`, these, and the first of all others.

use super::hash::Draw;
use super::options::{Metric, Options, Pick, Ranks};
use super::points::Place;
use super::shortage::TRIPLETS;
use super::weight::{Weights, ordered_bits};
use crate::{Result, memory};

/// What negatives of a pair are ordered by: the smallest come first. Unique within a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// Of a distance or a weight; above 0. 0 if the draw alone decides, and for what comes before all others.
    pub key: u64,
    /// Decides between equal ones.
    pub draw: Draw,
}

/// By what negatives are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By their draws.
    Draw,
    /// The nearest first; the draw decides ties.
    Distance,
    /// By [`Weights::key`].
    Weight,
    /// All are kept, in any order.
    Nothing,
}

/// What a search keeps of the negatives of each pair.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    pub by: By,
    /// As many of the first ones.
    pub most: usize,
}

/// How negatives are ordered and chosen.
#[derive(Debug, Clone)]
pub struct Choice {
    pick: Pick,
    most: usize,
    ranks: Ranks,
    metric: Metric,
    weights: Weights,
}

/// A negative that qualifies for a pair.
pub trait Qualified {
    /// Its draw.
    fn draw(&self) -> Draw;

    /// Its distance from the anchor.
    fn d_an(&self) -> f64;
}

impl Choice {
    /// Of rows of `dim` columns.
    pub fn new(options: &Options, dim: usize) -> Result<Self> {
        Ok(Self {
            pick: options.pick,
            most: options.negatives_per_pair,
            ranks: options.ranks,
            metric: options.metric,
            weights: Weights::new(dim)?,
        })
    }

    /// The order of a negative.
    pub fn order(&self, by: By, draw: Draw, d_an: f64) -> Order {
        match by {
            By::Draw | By::Nothing => Order { key: 0, draw },
            // Bits are in the order of the distances, which are not negative.
            By::Distance => Order { key: d_an.to_bits() + 1, draw },
            By::Weight => {
                Order { key: ordered_bits(self.weights.key(draw, self.metric.squared(d_an))), draw }
            }
        }
    }

    /// The weights of distances.
    pub const fn weights(&self) -> &Weights {
        &self.weights
    }

    /// By what the pick orders.
    const fn by(&self) -> By {
        match self.pick {
            Pick::Random => By::Draw,
            Pick::Hardest => By::Distance,
            Pick::Distance => By::Weight,
            Pick::All => By::Nothing,
        }
    }

    /// How many are returned at most.
    fn returned(&self) -> usize {
        if self.pick == Pick::All { usize::MAX } else { self.most }
    }

    /// The stages of the search for what is kept. Of two, the second one looks behind what the first one keeps.
    pub fn stages(&self) -> (Stage, Option<Stage>) {
        let Ranks { first, end } = self.ranks;
        let last = Stage { by: self.by(), most: self.returned() };
        let nearest = |most| Stage { by: By::Distance, most };
        if self.ranks == Ranks::ALL {
            return (last, None);
        }
        match self.pick {
            Pick::Hardest => (nearest(end.min(first.saturating_add(self.most))), None),
            Pick::All if end == usize::MAX => (last, None),
            Pick::Random | Pick::Distance if end == usize::MAX => (nearest(first), Some(last)),
            Pick::Random | Pick::Distance | Pick::All => (nearest(end), None),
        }
    }

    /// Keeps of some negatives what may be chosen when others are added: as many as [`Self::stages`] keep.
    pub fn keep(&self, negatives: &mut Vec<impl Qualified>) {
        match self.stages() {
            (first, Some(then)) => {
                self.sort(first.by, negatives);
                if negatives.len() > first.most {
                    self.sort(then.by, &mut negatives[first.most..]);
                }
                negatives.truncate(first.most.saturating_add(then.most));
            }
            (stage, None) if stage.by != By::Nothing => {
                self.sort(stage.by, negatives);
                negatives.truncate(stage.most);
            }
            _ => {}
        }
    }

    /// Chooses among what was kept of all negatives of a pair.
    pub fn choose(&self, kept: &mut Vec<impl Qualified>) {
        let Ranks { first, end } = self.ranks;
        if self.ranks != Ranks::ALL {
            self.sort(By::Distance, kept);
            kept.truncate(end);
            kept.drain(..first.min(kept.len()));
        }
        if self.pick != Pick::All {
            self.sort(self.by(), kept);
            kept.truncate(self.most);
        }
    }

    fn sort(&self, by: By, negatives: &mut [impl Qualified]) {
        negatives.sort_unstable_by_key(|negative| self.order(by, negative.draw(), negative.d_an()));
    }
}

impl Qualified for Negative {
    fn draw(&self) -> Draw {
        self.order.draw
    }

    fn d_an(&self) -> f64 {
        self.d_an
    }
}

/// A negative that was found for a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Negative {
    /// Where it comes among the negatives of its pair in the order of the stage.
    pub order: Order,
    /// Its place among the candidates.
    pub place: Place,
    /// Its distance from the anchor.
    pub d_an: f64,
}

/// Up to this many negatives are kept in their order. Of more, twice as many gather before the first of them are
/// selected: of 12,000 rows of 64 columns, to insert each of 5,000 takes 7 times as long.
const MOST_SORTED: usize = 64;

/// At most `capacity` negatives, those that come first in order.
#[derive(Debug, Clone)]
pub struct Picked {
    /// In ascending order if the capacity is at most [`MOST_SORTED`].
    best: Vec<Negative>,
    capacity: usize,
    /// Whether the last one of the first `capacity` is at its place: all further ones must come before it.
    is_bounded: bool,
}

impl Picked {
    /// No negatives yet. Of a stage that orders by nothing, all are kept, in the order in which they are offered.
    pub fn new(stage: Stage) -> Self {
        let capacity = if stage.by == By::Nothing { usize::MAX } else { stage.most };
        Self { best: Vec::new(), capacity, is_bounded: capacity <= MOST_SORTED }
    }

    /// Whether it holds as many as it is to return.
    pub fn is_full(&self) -> bool {
        self.best.len() >= self.capacity
    }

    /// A negative that all further ones must come before, once that is known. It is the last one that is kept; where
    /// the capacity is above [`MOST_SORTED`], it may come a little later.
    pub fn last(&self) -> Option<&Negative> {
        self.best.get(self.capacity - 1).filter(|_| self.is_bounded)
    }

    /// Whether a negative with this order would be kept.
    pub fn wants(&self, order: Order) -> bool {
        self.last().is_none_or(|last| order < last.order)
    }

    /// Keeps a negative if it is one of the first `capacity`.
    pub fn offer(&mut self, negative: Negative) -> Result<()> {
        if !self.wants(negative.order) {
            return Ok(());
        }
        if self.capacity <= MOST_SORTED {
            if self.is_full() {
                self.best.pop();
            }
            let at = self.best.partition_point(|other| other.order < negative.order);
            memory::reserve_ahead(&mut self.best, 1, 0, TRIPLETS)?;
            self.best.insert(at, negative);
        } else {
            memory::reserve_ahead(&mut self.best, 1, 0, TRIPLETS)?;
            self.best.push(negative);
            if self.best.len() == self.capacity.saturating_mul(2) {
                self.select();
            }
        }
        Ok(())
    }

    /// The negatives that are kept, when no further ones come. If they are as many as can be, [`Self::last`] is the
    /// last of them.
    pub fn negatives(&mut self) -> &[Negative] {
        if self.is_full() && self.capacity > MOST_SORTED {
            self.select();
        }
        &self.best
    }

    /// How many there are so far.
    pub fn len(&self) -> usize {
        self.best.len()
    }

    fn select(&mut self) {
        self.best.select_nth_unstable_by_key(self.capacity - 1, |negative| negative.order);
        self.best.truncate(self.capacity);
        self.is_bounded = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the capacity, and in whatever order they come, the first ones are kept.
        #[test]
        fn keeps_the_first(keys in prop::collection::vec(0_u64..2000, 0..600), most in 1_usize..200) {
            let mut picked = Picked::new(Stage { by: By::Distance, most });
            let negative = |(place, &key): (usize, &u64)| Negative {
                order: Order { key, draw: Draw::new(place as u16, 0) },
                place: place as Place,
                d_an: key as f64,
            };
            let mut all: Vec<Negative> = keys.iter().enumerate().map(negative).collect();
            for &negative in &all {
                picked.offer(negative).unwrap();
            }
            let mut kept = picked.negatives().to_vec();
            kept.sort_by_key(|negative| negative.order);
            all.sort_by_key(|negative| negative.order);
            all.truncate(most);
            prop_assert_eq!(picked.last(), if all.len() == most { all.last() } else { None });
            prop_assert_eq!(kept, all);
        }
    }
}
