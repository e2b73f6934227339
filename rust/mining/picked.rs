//! The negatives picked so far for one pair.

use super::hash::Draw;
use super::points::Place;
use super::shortage::TRIPLETS;
use crate::{Result, memory};

/// What a pick orders by: the smallest come first. Unique within a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// Bits of the distance for the hardest pick, else 0.
    pub distance: u64,
    /// Decides between equal ones.
    pub draw: Draw,
}

/// A qualifying negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Negative {
    /// Where it comes among the negatives of its pair.
    pub order: Order,
    /// Its place among the candidates.
    pub place: Place,
    /// Its distance from the anchor.
    pub d_an: f64,
}

/// At most `capacity` negatives, those that come first in order.
#[derive(Debug, Clone)]
pub struct Picked {
    /// In ascending order, unless all are kept.
    best: Vec<Negative>,
    capacity: usize,
}

impl Picked {
    /// Capacity that keeps all negatives, in the order in which they are offered.
    pub const ALL: usize = usize::MAX;

    /// No negatives yet.
    pub const fn new(capacity: usize) -> Self {
        Self { best: Vec::new(), capacity }
    }

    /// Whether it holds as many as it can: a further negative must then come before the last one.
    pub fn is_full(&self) -> bool {
        self.best.len() == self.capacity
    }

    /// The last one, once full.
    pub fn last(&self) -> Option<&Negative> {
        if self.is_full() { self.best.last() } else { None }
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
        if self.is_full() {
            self.best.pop();
        }
        let at = if self.capacity == Self::ALL {
            self.best.len()
        } else {
            self.best.partition_point(|other| other.order < negative.order)
        };
        memory::reserve_ahead(&mut self.best, 1, 0, TRIPLETS)?;
        self.best.insert(at, negative);
        Ok(())
    }

    /// The negatives that are kept.
    pub fn negatives(&self) -> &[Negative] {
        &self.best
    }
}
