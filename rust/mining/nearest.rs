//! The hardest negatives: the nearest ones that qualify.

use super::Stats;
use super::narrow::Narrow;
use super::pairs::pairs_of;
use super::points::Place;
use super::screen::{AnchorEstimates, BLOCK, Bounds, Window};
use super::search::{OpenAnchor, OpenPair, Scratch, Search};
use super::shortage::THREADS;
use crate::{Interrupt, Result, memory};

/// How many times as long a test takes as a product in 8 bits, or as one in 16 bits takes more than that: 60 ns and
/// 2.5 ns (512 columns, VNNI). If more rows than one in this many pass the coarse screen, the fine one is faster.
pub const TEST: usize = 24;

/// Pairs of an anchor by which the screen is chosen.
const TRIED: usize = 8;

/// Up to the last negative that was picked.
struct UpTo<'a> {
    search: &'a Search<'a>,
    window: Window,
}

impl Narrow for UpTo<'_> {
    fn may_be_picked(&self, _: &OpenPair, _: Place, bounds: impl FnOnce() -> Bounds) -> bool {
        self.window.may_hold(bounds())
    }

    fn narrow(&mut self, open: &OpenPair) {
        if let Some(last) = open.picked.last() {
            let up_to_last = self.search.window(&open.pair, f64::NEG_INFINITY, last.d_an);
            self.window = self.window.up_to_end_of(up_to_last);
        }
    }
}

impl Search<'_> {
    /// Goes through a stretch pair by pair. What the screen knows for certain narrows a pair's window before the
    /// first row is tested, and each row that is picked narrows it further.
    pub fn sweep_nearest(
        &self,
        open: &mut OpenAnchor,
        estimates: &AnchorEstimates<'_>,
        scratch: &mut Scratch,
        interrupt: &Interrupt,
        stats: &mut Stats,
    ) -> Result<()> {
        let (anchor, own) = (open.anchor, self.sets.own_run(open.anchor));
        let Scratch { panel_marks, distances, nearest, .. } = scratch;
        distances.restart(self.sets.candidates().len())?;
        for open in &mut open.pairs {
            interrupt.check()?;
            let window = estimates.nearest(open.window, self.stage.most, &own, nearest)?;
            estimates.mark(window, &own, panel_marks)?;
            let mut up_to = UpTo { search: self, window };
            self.test_marked(anchor, open, &mut up_to, estimates, panel_marks, distances, stats)?;
            open.window = up_to.window;
        }
        Ok(())
    }

    /// Whether so few rows pass this search's screen that a finer one would not pay: tried with a few anchors.
    pub fn few_pass(&self, interrupt: &Interrupt) -> Result<bool> {
        let (all, mut stats) = (self.sets.anchors.len(), Stats::default());
        let evenly = (0..all.min(BLOCK)).map(|i| (i * all / all.min(BLOCK)) as Place);
        let anchors: Vec<Place> = memory::collect(evenly, THREADS)?;
        let Some(stretch) = self.screen.stretches().next() else { return Ok(true) };
        let (mut estimates, mut scratch) = (Vec::new(), Scratch::default());
        let mut block = self.screen.block(&anchors, 0..0, &mut estimates)?;
        block.measure(stretch, interrupt)?;
        let (mut passed, mut seen) = (0, 0);
        for (i, &anchor) in anchors.iter().enumerate() {
            let (from_anchor, own) = (block.of_anchor(i), self.sets.own_run(anchor));
            let pairs = pairs_of(anchor, self.sets, self.options, self.isa, &mut stats)?;
            seen += from_anchor.candidates();
            for pair in pairs.iter().take(TRIED) {
                let window = self.window(pair, f64::NEG_INFINITY, f64::INFINITY);
                let window = from_anchor.nearest(window, self.stage.most, &own, &mut scratch.nearest)?;
                passed += from_anchor.mark(window, &own, &mut scratch.panel_marks)?;
            }
        }
        Ok(passed * TEST <= seen)
    }
}

#[cfg(test)]
mod tests {
    use super::super::picked::Choice;
    use super::super::points::Sets;
    use super::super::screen::{Precision, Screen};
    use super::super::shortage::Progress;
    use super::super::{Band, Input, Options, Pick, Rows};
    use super::*;
    use crate::Isa;

    /// Whether few of `count` rows pass the coarse screen that lie up to `radius` from the first axis, at either end.
    fn few_of(isa: Isa, count: usize, radius: f32) -> bool {
        let (dim, mut state) = (64, 0);
        let mut number = || {
            state += 1;
            (crate::mix::mix64(state) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let values = (0..count * dim).map(|at| match (at % dim, at / dim / 4 % 2) {
            (0, 0) => 1.0,
            (0, _) => -1.0,
            _ => radius * number(),
        });
        let embeddings: Vec<f32> = values.collect();
        let labels: Vec<i64> = (0..count as i64).map(|row| row / 4).collect();
        let rows = Rows { embeddings: &embeddings, labels: &labels, ids: None };
        let options = Options { pick: Pick::Hardest, band: Band::ANY, ..Options::DEFAULT };
        let interrupt = Interrupt::new();
        let sets = Sets::new(&Input::new(dim, rows, None), &options, isa, &interrupt).unwrap();
        let choice = Choice::new(&options, dim).unwrap();
        let screen = Screen::new(&sets, Precision::Coarse, isa, &interrupt).unwrap();
        let progress = Progress::default();
        let search = Search::new(&sets, &screen, (&options, &choice), false, isa, &progress);
        search.few_pass(&interrupt).unwrap()
    }

    #[test]
    fn a_finer_screen_is_for_rows_that_the_coarse_one_cannot_tell_apart() {
        for isa in Isa::available() {
            assert!(few_of(isa, 1200, 1.0), "{}: rows that point anywhere", isa.name());
            assert!(
                !few_of(isa, 1200, 1e-4),
                "{}: rows that are all but equal to half of the others",
                isa.name()
            );
            assert!(few_of(isa, 0, 1.0), "no rows");
        }
    }
}
