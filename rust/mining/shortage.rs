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

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(what: &'static str) -> Error {
        Error::Memory { bytes: 9, what: what.into(), available: None, advice: String::new() }
    }

    fn advised(progress: &Progress, what: &'static str, options: &Options) -> String {
        progress.advise(memory(what), options).to_string()
    }

    #[test]
    fn what_to_do_depends_on_what_memory_was_for() {
        let progress = Progress::default();
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let plain = Options::DEFAULT;
        let fewer = "mine fewer rows at once (in a run, lower bag_size)";
        let of = |threads: usize, what| pool(threads).install(|| advised(&progress, what, &plain));
        assert!(of(1, ROWS).ends_with(&format!("{ROWS}: {fewer}")));
        assert!(of(3, ROWS).ends_with(&format!("{ROWS}: {fewer}")));
        assert!(of(1, THREADS).ends_with(&format!("{THREADS}: {fewer}")));
        assert!(of(3, THREADS).ends_with(&format!(": use fewer threads than 3, or {fewer}")));
        for what in [PAIRS, TRIPLETS, COLUMNS] {
            let ways = |options: Options| {
                let text = advised(&progress, what, &options);
                text.split_once(&format!("{what}: ")).expect("advice").1.to_owned()
            };
            assert_eq!(ways(plain), format!("{fewer}, take pairs='hardest' or set max_ap"));
            let all = Options { pick: Pick::All, negatives_per_pair: 5, ..plain };
            let all = ways(Options { max_ap: Some(1.0), pairs: Pairs::Hardest, ..all });
            assert_eq!(all, format!("take pick='random' or pick='hardest', {fewer} or lower max_ap"));
            for pick in [Pick::Random, Pick::Hardest, Pick::Distance] {
                let several = ways(Options { pick, negatives_per_pair: 2, pairs: Pairs::Easiest, ..plain });
                assert_eq!(several, format!("lower negatives_per_pair, {fewer} or set max_ap"));
            }
        }
        let other = progress.advise(Error::Value("other".into()), &plain);
        assert_eq!(other.to_string(), Error::Value("other".into()).to_string());
    }

    #[test]
    fn the_number_of_triplets_is_estimated_from_the_work_that_is_done() {
        let options = Options { pick: Pick::All, ..Options::DEFAULT };
        let progress = Progress::default();
        progress.begin(400);
        let text = advised(&progress, TRIPLETS, &options);
        assert!(!text.contains("had found"), "{text}");
        // A quarter of the anchors are known, and of their work a tenth is done.
        progress.anchors(60);
        progress.anchors(40);
        progress.plan(600, 5);
        progress.plan(400, 0);
        let text = advised(&progress, TRIPLETS, &options);
        assert!(!text.contains("had found"), "nothing of the work is done: {text}");
        progress.add(70, 1_000);
        progress.add(30, 234);
        assert_eq!(progress.triplets(), 1_239);
        let text = advised(&progress, TRIPLETS, &options);
        let all = 1_239_u64 * 40;
        let expected = format!(
            ". pick='all' had found 1,239 triplets in 3 % of the work, so there are about {}, which take {}: ",
            "49,000",
            in_bytes(all * 72),
        );
        assert!(text.contains(&expected), "{text}; expected {expected}");
        for pick in [Pick::Random, Pick::Hardest, Pick::Distance] {
            assert!(!advised(&progress, TRIPLETS, &Options { pick, ..options }).contains("had found"));
        }
        // The anchors to come may have fewer pairs.
        progress.add(100_000, 0);
        assert!(advised(&progress, TRIPLETS, &options).contains("in 100 % of the work"));
    }

    #[test]
    fn an_estimate_has_two_digits() {
        let of = [0, 7, 10, 99, 100, 987, 1_239, 99_999, u64::MAX].map(two_digits);
        assert_eq!(of, [0, 7, 10, 99, 100, 980, 1_200, 99_000, 18_000_000_000_000_000_000]);
    }
}
