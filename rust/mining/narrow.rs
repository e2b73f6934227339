//! Tests of the candidates that a screen has marked for a pair, while its picks narrow down what may be picked.

use super::Stats;
use super::exact::TOGETHER;
use super::points::Place;
use super::screen::{AnchorEstimates, Bounds};
use super::search::{Distances, OpenPair, Search};
use crate::Result;

/// What may still be picked for a pair.
pub trait Narrow {
    /// Whether a candidate may be, by what is known of its distance.
    fn may_be_picked(&self, open: &OpenPair, place: Place, bounds: impl FnOnce() -> Bounds) -> bool;

    /// Takes into account what was picked.
    fn narrow(&mut self, open: &OpenPair);
}

/// Rows that wait until as many are there as are tested together.
#[derive(Default)]
struct Waiting {
    places: [Place; TOGETHER],
    count: usize,
}

impl Waiting {
    /// Adds a row; all of them, if they are as many.
    fn push(&mut self, place: Place) -> Option<[Place; TOGETHER]> {
        self.places[self.count] = place;
        self.count = (self.count + 1) % TOGETHER;
        (self.count == 0).then_some(self.places)
    }

    /// Those that are left.
    fn rest(&self) -> &[Place] {
        &self.places[..self.count]
    }
}

impl Search<'_> {
    /// Tests the marked candidates of a stretch that may be picked for a pair.
    #[allow(clippy::too_many_arguments)] // the buffers of a thread, apart from each other
    pub fn test_marked(
        &self,
        anchor: Place,
        open: &mut OpenPair,
        narrow: &mut impl Narrow,
        estimates: &AnchorEstimates<'_>,
        marks: &[u32],
        distances: &mut Distances,
        stats: &mut Stats,
    ) -> Result<()> {
        let offer = |open: &mut OpenPair, narrow: &mut _, place, d_an| {
            self.offer(open, place, d_an)?;
            Narrow::narrow(narrow, open);
            Ok(())
        };
        let mut waiting = Waiting::default();
        estimates.visit(marks, |place| {
            if !narrow.may_be_picked(open, place, || estimates.bounds(place)) {
                return Ok(());
            }
            if let Some(d_an) = distances.known(place) {
                return offer(open, narrow, place, d_an);
            }
            let Some(places) = waiting.push(place) else { return Ok(()) };
            for (place, d_an) in places.into_iter().zip(self.distances(anchor, &places, stats)) {
                distances.keep(place, d_an);
                offer(open, narrow, place, d_an)?;
            }
            Ok(())
        })?;
        let rest = waiting.rest();
        if rest.is_empty() {
            return Ok(());
        }
        for (&place, d_an) in rest.iter().zip(self.distances(anchor, rest, stats)) {
            distances.keep(place, d_an);
            offer(open, narrow, place, d_an)?;
        }
        Ok(())
    }
}
