//! The way from rows to triplets: rounds of anchors, for each the stages of the search, each stage in two steps.

use std::ops::Range;

use super::found::Found;
use super::picked::{By, Choice};
use super::points::{Place, Sets};
use super::probe::probe;
use super::scatter::scatter;
use super::screen::{Precision, Screen};
use super::search::{OpenAnchor, Search};
use super::shortage::{PAIRS, Progress};
use super::sieve::sieve;
use super::sweep::sweep;
use super::{Input, Options, Pairs, Triplets};
use crate::{Interrupt, Isa, Result, memory};

/// Pairs of one round, or more by those of one anchor. A round keeps 130 MB between its steps, and its
/// picks; anchors of one round share their products.
const ROUND: usize = 1 << 20;

/// Mines on the current rayon pool. Triplets come in ascending order of their ids.
pub fn mine(input: &Input<'_>, options: &Options, interrupt: &Interrupt) -> Result<Triplets> {
    run(Isa::choose()?, input, options, false, interrupt)
}

/// Finds what may be picked from one block of the negatives, or between two parts of the identities: of each pair as many as [`finish`](super::finish)
/// may need, whatever the other blocks hold. The ids of all sets must be given, and mean the same rows in all
/// blocks. Counts of work are those of this block, counts of pairs the same for all.
pub fn collect(input: &Input<'_>, options: &Options, interrupt: &Interrupt) -> Result<Triplets> {
    run(Isa::choose()?, input, options, true, interrupt)
}

/// Mines or collects on an instruction set.
pub(super) fn run(
    isa: Isa,
    input: &Input<'_>,
    options: &Options,
    in_part: bool,
    interrupt: &Interrupt,
) -> Result<Triplets> {
    input.check()?;
    options.check()?;
    let progress = Progress::default();
    run_counted(isa, input, options, in_part, &progress, interrupt)
        .map_err(|error| progress.advise(error, options))
}

fn run_counted(
    isa: Isa,
    input: &Input<'_>,
    options: &Options,
    in_part: bool,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Triplets> {
    let sets = Sets::new(input, options, isa, interrupt)?;
    let choice = Choice::new(options, input.dim)?;
    let (stage, _) = choice.stages();
    let mut screen = Screen::new(&sets, precision(stage.by), isa, interrupt)?;
    if matches!(stage.by, By::Distance | By::Weight) {
        let search = Search::new(&sets, &screen, (options, &choice), in_part, isa, progress);
        if !search.few_pass(interrupt)? {
            drop(screen); // before there is memory for the next one
            screen = Screen::new(&sets, Precision::Fine, isa, interrupt)?;
        }
    }
    let search = Search::new(&sets, &screen, (options, &choice), in_part, isa, progress);
    progress.begin(sets.anchors.len());
    let mut found = Found::default();
    for rows in rounds(&sets, options.pairs)? {
        let mut listed = search.open(&rows, interrupt)?;
        let open = std::mem::take(&mut listed.open);
        found = found.join(listed)?.join(look(&search, &rows, open, interrupt)?)?;
        if let Some(second) = search.second() {
            let open = found.take_beyond()?;
            found = found.join(look(&second, &rows, open, interrupt)?)?;
        }
    }
    found.fall_back(&search, interrupt)?;
    let mut triplets = found.with_ids(&sets)?;
    interrupt.check()?;
    if !in_part {
        triplets.limit(options)?;
        triplets.scatter = scatter(sets.candidates(), isa)?;
    }
    Ok(triplets)
}

/// Looks for the negatives of the pairs of some anchors among the rows of a round.
fn look(
    search: &Search<'_>,
    rows: &Range<Place>,
    open: Vec<OpenAnchor>,
    interrupt: &Interrupt,
) -> Result<Found> {
    let mut probed = probe(search, open, interrupt)?;
    let open = std::mem::take(&mut probed.open);
    let (sieved, open) = sieve(search, rows.clone(), open, interrupt)?;
    probed.join(sieved)?.join(sweep(search, open, interrupt)?)
}

/// A random pick looks at few of the rows that may qualify, those with the smallest draws, and the hardest pick
/// at few where distances are far apart. To find all, all of them are looked at.
pub fn precision(by: By) -> Precision {
    match by {
        By::Draw | By::Distance | By::Weight => Precision::Coarse,
        By::Nothing => Precision::Fine,
    }
}

/// The anchors in rounds of about [`ROUND`] pairs.
pub(super) fn rounds(sets: &Sets, pairs: Pairs) -> Result<Vec<Range<Place>>> {
    let all = sets.anchors.len() as Place;
    let mut rounds = Vec::new();
    let (mut first, mut count) = (0, 0);
    for place in 0..all {
        count += match pairs {
            _ if !sets.is_anchor(place) => 0,
            Pairs::Hardest | Pairs::Easiest => 1,
            Pairs::Unordered if !sets.has_references() => sets.positive_run(place).len().div_ceil(2),
            Pairs::Unordered | Pairs::Ordered => sets.positive_run(place).len(),
        };
        if count > ROUND || place + 1 == all {
            memory::push(&mut rounds, first..place + 1, PAIRS)?;
            (first, count) = (place + 1, 0);
        }
    }
    Ok(rounds)
}
