//! The inner kernels one by one, for `cargo bench`. Not a part of the interface.

use super::mine::precision;
use super::picked::Choice;
use super::points::Sets;
pub use super::scan::Word;
use super::screen::{BLOCK, Screen};
use super::{Input, Options, exact, hash, scan};
use crate::{Interrupt, Isa, Result};

/// The definition's squared distance of two rows, padded to a multiple of 8.
pub fn distance(isa: Isa, x: &[f32], y: &[f32]) -> f64 {
    exact::distance(isa, x, y)
}

/// The spreads of as many rows as `spreads` holds, for one anchor.
pub fn spreads(isa: Isa, hashes_low: &[u32], spreads: &mut [u16]) {
    hash::spreads(isa, 1, hashes_low, spreads);
}

/// The number of rows with a draw below the threshold that is meant for `count` of them, for one pair.
pub fn scan(isa: Isa, spreads: &[u16], count: usize, scratch: &mut Vec<Word>) -> Result<usize> {
    let mut found = 0;
    let threshold = scan::threshold(count, spreads.len());
    let count = |_| {
        found += 1;
        Ok(())
    };
    scan::below(isa, spreads, hash::Key::new(1, 2), threshold, scratch, count)?;
    Ok(found)
}

/// Calls `work` with a function that estimates the distances of one block of anchors to all candidates, and
/// with the number of these distances.
///
/// # Panics
/// Never: the call cannot be interrupted.
pub fn estimates(
    input: &Input<'_>,
    options: &Options,
    isa: Isa,
    work: impl FnOnce(&mut dyn FnMut(), usize),
) -> Result<()> {
    let interrupt = Interrupt::new();
    let sets = Sets::new(input, options, isa, &interrupt)?;
    let (stage, _) = Choice::new(options, input.dim)?.stages();
    let screen = Screen::new(&sets, precision(stage.by), isa, &interrupt)?;
    let anchors: Vec<_> = (0..sets.anchors.len().min(BLOCK) as u32).collect();
    let mut estimates = Vec::new();
    let mut block = screen.block(&anchors, 0..0, &mut estimates)?;
    let mut measure = || {
        for stretch in screen.stretches() {
            block.measure(stretch, &interrupt).expect("nobody interrupts");
        }
    };
    work(&mut measure, anchors.len() * sets.candidates().len());
    Ok(())
}
