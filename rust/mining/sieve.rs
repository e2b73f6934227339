//! Between the two steps: where the candidates are the anchors and few of them are in the windows, half of the
//! products settle nearly all pairs.

use std::ops::Range;

use rayon::prelude::*;

use super::found::Found;
use super::hits::{Hit, Reach, Source, Tried};
use super::nearest::TEST;
use super::picked::By;
use super::points::Place;
use super::screen::{BLOCK, Bounds, Window};
use super::search::{OpenAnchor, OpenPair, Scratch, Search};
use super::shortage::{PAIRS, THREADS};
use super::sweep::MOST_LISTED;
use crate::{Interrupt, Result, memory};

/// What it costs to compare an estimate with two windows and not with one, as a share of the product.
const COMPARED: f64 = 0.1;

/// Settles the pairs of open anchors that have few candidates in their windows. Returns the other anchors; all of
/// them where that would not pay. `anchors` are those of the round.
pub fn sieve(
    search: &Search<'_>,
    anchors: Range<Place>,
    open: Vec<OpenAnchor>,
    interrupt: &Interrupt,
) -> Result<(Found, Vec<OpenAnchor>)> {
    if !search.sets.are_one()
        || search.stage.by == By::Nothing
        || !search.sieve_pays(&anchors, &open, interrupt)?
    {
        return Ok((Found::default(), open));
    }
    let mut windows = Vec::new();
    memory::resize(&mut windows, anchors.len(), Window::EMPTY, PAIRS)?;
    for open in &open {
        windows[(open.anchor - anchors.start) as usize] = open.window();
    }
    let own = |anchor| search.sets.own_run(anchor);
    let near = search.screen.sieve(anchors, &windows, MOST_LISTED, own, interrupt)?;
    drop(windows);
    open.into_par_iter()
        .map_init(Scratch::default, |scratch, open| {
            let mut found = Found::default();
            match near.of(open.anchor) {
                Some(near) => search.settle_listed(open, near, scratch, &mut found, interrupt)?,
                None => memory::push(&mut found.open, open, PAIRS)?,
            }
            Ok(found)
        })
        .try_reduce(Found::default, Found::join)
        .map(|mut found| {
            let rest = std::mem::take(&mut found.open);
            (found, rest)
        })
}

impl Search<'_> {
    /// Whether half of the products of the round's anchors, and all of those that then are still open, are fewer
    /// than all of the open ones; tried with a few of these.
    fn sieve_pays(&self, anchors: &Range<Place>, open: &[OpenAnchor], interrupt: &Interrupt) -> Result<bool> {
        let Some(stretch) = self.screen.stretches().next() else { return Ok(false) };
        let (all, candidates) = (anchors.len() as f64, self.sets.candidates().len() as f64);
        let products = (1.0 - 0.5 * all / candidates) * all * (1.0 + COMPARED);
        if products >= open.len() as f64 {
            return Ok(false);
        }
        let tried = open.len().min(BLOCK);
        let some: Vec<&OpenAnchor> = (0..tried).map(|i| &open[i * open.len() / tried]).collect();
        let places = memory::collect(some.iter().map(|open| open.anchor), THREADS)?;
        let (mut estimates, mut marks) = (Vec::new(), Vec::new());
        let of_all = self.screen.panels() as f64 / stretch.len() as f64;
        let mut block = self.screen.block(&places, 0..0, &mut estimates)?;
        block.measure(stretch, interrupt)?;
        let (mut too_many, mut listed) = (0.0, 0.0);
        for (i, open) in some.iter().enumerate() {
            let own = self.sets.own_run(open.anchor);
            let marked = block.of_anchor(i).mark(open.window(), &own, &mut marks)? as f64 * of_all;
            if marked > MOST_LISTED as f64 {
                too_many += 1.0;
            } else {
                listed += marked;
            }
        }
        // A draw is mostly decided by the first or the second of the list, a distance by all of it.
        let tests = if self.stage.by == By::Draw { 0.0 } else { listed * TEST as f64 / candidates };
        let of_open = (too_many + tests) / tried as f64;
        let open = open.len() as f64;
        Ok(products + of_open * open < open)
    }

    /// Settles the pairs of an anchor with all candidates that may be in the window of one of them.
    fn settle_listed(
        &self,
        mut open: OpenAnchor,
        near: &[Place],
        scratch: &mut Scratch,
        found: &mut Found,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let Scratch { hits, distances, .. } = scratch;
        let mut listed = Listed { search: self, anchor: open.anchor, near };
        self.test_hits(
            open.anchor,
            &mut open.pairs,
            &mut listed,
            hits,
            distances,
            interrupt,
            &mut found.stats,
        )?;
        open.pairs.iter_mut().try_for_each(|pair| found.settle(open.anchor, pair, self))
    }
}

/// The candidates of a list.
struct Listed<'s> {
    search: &'s Search<'s>,
    anchor: Place,
    near: &'s [Place],
}

impl Source for Listed<'_> {
    fn hit(&mut self, open: &mut OpenPair, tried: &mut Tried, hits: &mut Vec<Hit>) -> Result<bool> {
        if tried.reach == Reach::All {
            return Ok(false);
        }
        tried.reach = Reach::All;
        self.near.iter().try_for_each(|&place| self.search.hit(open, tried.below, place, hits))?;
        Ok(true)
    }

    fn bounds(&self, place: Place) -> Bounds {
        self.search.screen.bounds(self.anchor, place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mine::precision;
    use super::super::picked::Choice;
    use super::super::points::Sets;
    use super::super::screen::Screen;
    use super::super::shortage::Progress;
    use super::super::{Band, Input, Options, Pairs, Pick, Rows};
    use super::*;
    use crate::Isa;

    /// Of `count` rows that point anywhere, in identities of two: how many anchors with pairs the sieve leaves of
    /// how many, when `every` one is open.
    fn left(count: usize, options: &Options, references: bool, every: usize) -> (usize, usize) {
        let (dim, mut state) = (32, 0);
        let mut number = || {
            state += 1;
            (crate::mix::mix64(state) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let embeddings: Vec<f32> = (0..count * dim).map(|_| number()).collect();
        let labels: Vec<i64> = (0..count as i64).map(|row| row / 2).collect();
        let rows = Rows { embeddings: &embeddings, labels: &labels, ids: None };
        let (interrupt, isa) = (Interrupt::new(), Isa::PORTABLE);
        let input = Input::new(dim, rows, references.then_some(rows));
        let sets = Sets::new(&input, options, isa, &interrupt).unwrap();
        let choice = Choice::new(options, dim).unwrap();
        let screen = Screen::new(&sets, precision(choice.stages().0.by), isa, &interrupt).unwrap();
        let progress = Progress::default();
        let search = Search::new(&sets, &screen, (options, &choice), false, isa, &progress);
        let all = 0..count as Place;
        let mut open = search.open(&all, &interrupt).unwrap().open;
        open.retain(|open| (open.anchor as usize).is_multiple_of(every));
        let before = open.len();
        let (found, rest) = sieve(&search, all, open, &interrupt).unwrap();
        assert_eq!(found.triplets() > 0, rest.len() < before);
        (rest.len(), before)
    }

    #[test]
    fn it_takes_most_anchors_where_few_candidates_are_in_their_windows() {
        let few = Options { band: Band::semihard(0.02), pairs: Pairs::Ordered, ..Options::DEFAULT };
        for pick in [Pick::Random, Pick::Hardest] {
            let (rest, all) = left(1200, &Options { pick, ..few }, false, 1);
            assert!(rest * 10 < all, "{pick:?}: {rest} of {all}");
        }
        let nothing = |(rest, all)| assert_eq!(rest, all);
        // Where nearly all candidates are in the windows, each anchor would be looked at twice.
        nothing(left(1200, &Options { band: Band::ANY, ..few }, false, 1));
        // Products of all anchors would be more than those of the open ones.
        nothing(left(1200, &few, false, 4));
        nothing(left(1200, &few, true, 1));
        nothing(left(1200, &Options { pick: Pick::All, ..few }, false, 1));
        nothing(left(0, &few, false, 1));
    }
}
