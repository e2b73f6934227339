//! The negatives picked so far for one pair.

use super::hash::Draw;
use super::points::Place;

/// What a pick orders by: a number, and the draw where that is equal.
pub type Order = (u64, Draw);

/// A qualifying negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Negative {
    /// What the pick orders by: the smallest come first. Unique within a pair.
    pub order: Order,
    /// Where it is.
    pub place: Place,
    /// Its distance from the anchor.
    pub d_an: f64,
}

/// At most `capacity` negatives, those of the smallest order.
#[derive(Debug, Clone)]
pub struct Picked {
    /// Ascending by order, unless all are kept.
    best: Vec<Negative>,
    capacity: usize,
}

impl Picked {
    /// All negatives are kept, as they come.
    pub const ALL: usize = usize::MAX;

    /// None yet.
    pub const fn new(capacity: usize) -> Self {
        Self { best: Vec::new(), capacity }
    }

    /// Whether only an order below the last one's would still change it.
    pub fn is_full(&self) -> bool {
        self.best.len() == self.capacity
    }

    /// The last of those kept, once full: what a newcomer must come before.
    pub fn last(&self) -> Option<&Negative> {
        if self.is_full() { self.best.last() } else { None }
    }

    /// Whether a negative of this order would be kept.
    pub fn wants(&self, order: Order) -> bool {
        self.last().is_none_or(|last| order < last.order)
    }

    /// Keeps a negative if it belongs to the first `capacity`.
    pub fn offer(&mut self, negative: Negative) {
        if !self.wants(negative.order) {
            return;
        }
        if self.is_full() {
            self.best.pop();
        }
        let at = if self.capacity == Self::ALL {
            self.best.len()
        } else {
            self.best.partition_point(|other| other.order < negative.order)
        };
        self.best.insert(at, negative);
    }

    /// Those kept.
    pub fn negatives(&self) -> &[Negative] {
        &self.best
    }
}
