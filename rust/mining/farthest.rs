//! The fallback: the farthest negative of an anchor.

use rayon::prelude::*;

use super::Stats;
use super::points::Place;
use super::screen::{AnchorEstimates, BLOCK, Estimates};
use super::search::Search;
use super::shortage::THREADS;
use crate::{Interrupt, Result, memory};

/// The farthest negative of an anchor; of equally far ones the one with the smallest id.
#[derive(Clone, Copy)]
pub struct Farthest {
    pub anchor: Place,
    /// Its id.
    pub negative: i64,
    pub d_an: f64,
}

impl Farthest {
    /// Whether another negative of the anchor takes its place.
    fn gives_way_to(&self, negative: i64, d_an: f64) -> bool {
        d_an.total_cmp(&self.d_an).then(self.negative.cmp(&negative)).is_gt()
    }
}

/// Of each of these anchors that has a negative among the candidates, in the same order.
pub fn farthest(
    search: &Search<'_>,
    anchors: &[Place],
    interrupt: &Interrupt,
) -> Result<(Vec<Farthest>, Stats)> {
    let blocks =
        anchors.par_chunks(BLOCK).map_init(Default::default, |estimates: &mut Estimates, anchors| {
            let mut stats = Stats::default();
            let mut farthest: Vec<Option<Farthest>> = Vec::new();
            memory::resize(&mut farthest, anchors.len(), None, THREADS)?;
            let mut block = search.screen.block(anchors, search.sets.own_run_of_all(anchors), estimates)?;
            for stretch in search.screen.stretches() {
                block.measure(stretch, interrupt)?;
                for (i, (farthest, &anchor)) in farthest.iter_mut().zip(anchors).enumerate() {
                    search.look_farther(anchor, farthest, &block.of_anchor(i), &mut stats)?;
                }
            }
            Ok((memory::collect(farthest.into_iter().flatten(), THREADS)?, stats))
        });
    blocks.try_reduce(Default::default, |(mut all, mut stats), (mut more, of_more)| {
        memory::append(&mut all, &mut more, THREADS)?;
        stats.add(of_more);
        Ok((all, stats))
    })
}

impl Search<'_> {
    /// Goes through a stretch: first to the candidate with the largest estimate, then to those that may be farther.
    fn look_farther(
        &self,
        anchor: Place,
        farthest: &mut Option<Farthest>,
        estimates: &AnchorEstimates<'_>,
        stats: &mut Stats,
    ) -> Result<()> {
        let own = self.sets.own_run(anchor);
        let window = |from: Option<Farthest>| {
            let from = from.map_or(f64::NEG_INFINITY, |from| from.d_an.next_down());
            self.screen.window(self.options.metric.squared(from), f64::INFINITY)
        };
        let mut look = |place: Place, farthest: &mut Option<Farthest>| {
            let (negative, d_an) =
                (self.sets.candidates().ids[place as usize], self.distance(anchor, place, stats));
            if farthest.is_none_or(|farthest| farthest.gives_way_to(negative, d_an)) {
                *farthest = Some(Farthest { anchor, negative, d_an });
            }
        };
        let Some(first) = estimates.farthest(&own) else { return Ok(()) };
        look(first, farthest);
        let mut marks = Vec::new();
        estimates.mark(window(*farthest), &own, &mut marks)?;
        estimates.visit(&marks, |place| {
            if place != first && window(*farthest).may_hold(estimates.bounds(place)) {
                look(place, farthest);
            }
            Ok(())
        })
    }
}
