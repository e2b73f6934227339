//! What memory is needed for, and what to do where there is not enough.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::current_num_threads;

use super::{Options, Pairs, Pick};
use crate::Error;
use crate::error::{grouped, in_bytes};

/// The rows as the kernels need them, and all that has a number of entries for each.
pub const ROWS: &str = "the rows and their codes";

/// What each thread has for itself.
pub const THREADS: &str = "the buffers of a thread";

/// The pairs of a round that are not settled.
pub const PAIRS: &str = "the pairs";

/// Triplets that were found, and negatives that are picked so far.
pub const TRIPLETS: &str = "triplets";

/// Triplets in the form in which they are returned.
pub const COLUMNS: &str = "the arrays of the triplets";

/// Bytes of a triplet while it is looked for, and in the arrays that are made of all of them.
pub const FOUND: u64 = 32;
pub const RETURNED: u64 = 40;

/// How far a call has come: tells how many triplets there will be when memory ends. Work is a number of pairs
/// times a number of panels.
#[derive(Default)]
pub struct Progress {
    /// Anchors whose pairs are known.
    anchors: AtomicU64,
    /// Work of these.
    planned: AtomicU64,
    /// Work done.
    done: AtomicU64,
    /// Triplets found.
    triplets: AtomicU64,
    /// All anchors.
    all_anchors: AtomicU64,
}

impl Progress {
    /// Sets how many anchors there are.
    pub fn begin(&self, anchors: usize) {
        self.all_anchors.store(anchors as u64, Ordering::Relaxed);
    }

    /// Adds rows whose pairs are known now.
    pub fn anchors(&self, anchors: usize) {
        self.anchors.fetch_add(anchors as u64, Ordering::Relaxed);
    }

    /// Adds what the first step found out about some anchors.
    pub fn plan(&self, work: usize, triplets: usize) {
        self.planned.fetch_add(work as u64, Ordering::Relaxed);
        self.triplets.fetch_add(triplets as u64, Ordering::Relaxed);
    }

    /// Adds what a part of the second step gave.
    pub fn add(&self, work: usize, triplets: usize) {
        self.done.fetch_add(work as u64, Ordering::Relaxed);
        self.triplets.fetch_add(triplets as u64, Ordering::Relaxed);
    }

    /// The share of the work that is done; the anchors to come are taken to have as many pairs as the first.
    fn share(&self) -> f64 {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        (of(&self.done) / of(&self.planned) * of(&self.anchors) / of(&self.all_anchors)).min(1.0)
    }

    /// Triplets found so far.
    pub fn triplets(&self) -> u64 {
        self.triplets.load(Ordering::Relaxed)
    }

    /// The same error, with advice if it is about memory.
    pub fn advise(&self, error: Error, options: &Options) -> Error {
        let Error::Memory { what, .. } = &error else { return error };
        let fewer_rows = "mine fewer rows at once (in a run, lower bag_size)";
        let advice = match &**what {
            THREADS if current_num_threads() > 1 => {
                format!(": use fewer threads than {}, or {fewer_rows}", current_num_threads())
            }
            ROWS | THREADS => format!(": {fewer_rows}"),
            _ => {
                let mut ways = Vec::new();
                match options.pick {
                    Pick::All => ways.push("take pick='random' or pick='hardest'"),
                    Pick::Random | Pick::Hardest | Pick::Distance if options.negatives_per_pair > 1 => {
                        ways.push("lower negatives_per_pair");
                    }
                    Pick::Random | Pick::Hardest | Pick::Distance => {}
                }
                ways.push(fewer_rows);
                match options.pairs {
                    Pairs::Ordered | Pairs::Unordered => ways.push("take pairs='hardest'"),
                    Pairs::Hardest | Pairs::Easiest => {}
                }
                ways.push(if options.max_ap.is_some() { "lower max_ap" } else { "set max_ap" });
                let last = ways.pop().unwrap_or_default();
                format!("{}: {} or {last}", self.estimate(options.pick), ways.join(", "))
            }
        };
        error.with_advice(advice)
    }

    /// How many triplets there would have been.
    fn estimate(&self, pick: Pick) -> String {
        let (triplets, share) = (self.triplets(), self.share());
        if pick != Pick::All || triplets == 0 || share.is_nan() || share == 0.0 {
            return String::new();
        }
        let all = (triplets as f64 / share) as u64;
        format!(
            ". pick='all' had found {} triplets in {:.0} % of the work, so there are about {}, which take {}",
            grouped(triplets),
            (100.0 * share).ceil(),
            grouped(two_digits(all)),
            in_bytes(all.saturating_mul(FOUND + RETURNED)),
        )
    }
}

/// An estimate has no more than two digits that mean something.
fn two_digits(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    number / unit * unit
}
