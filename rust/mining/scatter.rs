//! How far apart the rows of different identities lie: tells whether a network has collapsed.

use super::exact;
use super::points::{Place, Points};
use super::shortage::ROWS;
use crate::{Isa, Result, memory};

/// Most rows that are compared. A bag of 7,200 rows has 26 million pairs, so the time is lost in its noise.
const COMPARED: usize = 1024;

/// The median of `2 |x - y|^2 / (|x|^2 + |y|^2)` over pairs of rows of different identities. It is 0 for equal
/// rows, and 2 for unit rows at right angles. `None` if the rows are of one identity.
///
/// A median, because a few rows that differ do not help a network that has collapsed, and a few equal rows do
/// no harm to one that has not. Each pair has its own norms, so that no long row outweighs all others.
///
/// Of many rows, every k-th is compared, each with one row of another identity that its hash chooses.
pub fn scatter(points: &Points, isa: Isa) -> Result<Option<f64>> {
    let step = points.len().div_ceil(COMPARED).max(1);
    let places = (0..points.len() as Place).step_by(step);
    let terms = places.filter_map(|place| {
        let other = points.of_another_identity(place)?;
        let squared = exact::distance(isa, points.values(place), points.values(other));
        let norms = points.squared_norms[place as usize] + points.squared_norms[other as usize];
        Some(if squared > 0.0 { 2.0 * squared / norms } else { 0.0 })
    });
    let mut terms = memory::collect(terms, ROWS)?;
    let middle = terms.len() / 2;
    Ok((middle < terms.len()).then(|| *terms.select_nth_unstable_by(middle, f64::total_cmp).1))
}
