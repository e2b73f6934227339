//! The way from rows to triplets: rounds of anchors, each in two steps.

use std::ops::Range;

use super::found::Found;
use super::points::{Place, Sets};
use super::probe::probe;
use super::scatter::scatter;
use super::screen::{Precision, Screen};
use super::search::Search;
use super::shortage::{PAIRS, Progress};
use super::sieve::sieve;
use super::sweep::sweep;
use super::{Input, Options, Pairs, Pick, Triplets};
use crate::{Interrupt, Isa, Result, memory};

/// Pairs of one round, or more by those of one identity. A round keeps 100 MB between its steps, and its
/// picks; anchors of one round share their products.
const ROUND: usize = 1 << 20;

/// Mines on the current rayon pool. Triplets come in ascending order of their ids.
pub fn mine(input: &Input<'_>, options: &Options, interrupt: &Interrupt) -> Result<Triplets> {
    input.check()?;
    options.check()?;
    let progress = Progress::default();
    mine_counted(input, options, &progress, interrupt).map_err(|error| progress.advise(error, options))
}

fn mine_counted(
    input: &Input<'_>,
    options: &Options,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Triplets> {
    let isa = Isa::choose()?;
    let sets = Sets::new(input, options, isa, interrupt)?;
    let mut screen = Screen::new(&sets, precision(options.pick), isa, interrupt)?;
    if options.pick == Pick::Hardest {
        let few_pass = Search::new(&sets, &screen, options, isa, progress).few_pass(interrupt)?;
        if !few_pass {
            drop(screen); // before there is memory for the next one
            screen = Screen::new(&sets, Precision::Fine, isa, interrupt)?;
        }
    }
    let search = Search::new(&sets, &screen, options, isa, progress);
    progress.begin(sets.anchors.len());
    let mut found = Found::default();
    for anchors in rounds(&sets, options.pairs)? {
        let mut round = probe(&search, anchors.clone(), interrupt)?;
        let open = std::mem::take(&mut round.open);
        let (sieved, open) = sieve(&search, anchors, open, interrupt)?;
        found = found.join(round)?.join(sieved)?.join(sweep(&search, open, interrupt)?)?;
    }
    found.sort();
    interrupt.check()?;
    found.with_ids(&sets, scatter(sets.candidates(), isa)?)
}

/// A random pick looks at few of the rows that may qualify, those with the smallest draws, and the hardest pick
/// at few where distances are far apart. To find all, all of them are looked at.
pub fn precision(pick: Pick) -> Precision {
    match pick {
        Pick::Random | Pick::Hardest => Precision::Coarse,
        Pick::All => Precision::Fine,
    }
}

/// The anchors in rounds of about [`ROUND`] pairs.
fn rounds(sets: &Sets, pairs: Pairs) -> Result<Vec<Range<Place>>> {
    let all = sets.anchors.len() as Place;
    let mut rounds = Vec::new();
    let (mut first, mut count) = (0, 0);
    for place in 0..all {
        count += match pairs {
            Pairs::Hardest | Pairs::Easiest => 1,
            Pairs::Unordered if !sets.are_two() => sets.identity_run(place).len().div_ceil(2),
            Pairs::Unordered | Pairs::Ordered => sets.identity_run(place).len(),
        };
        if count > ROUND || place + 1 == all {
            memory::push(&mut rounds, first..place + 1, PAIRS)?;
            (first, count) = (place + 1, 0);
        }
    }
    Ok(rounds)
}
