//! Exact triplet mining.
//!
//! A triplet is an anchor, a positive (another row with the anchor's label) and a negative (a row with
//! another label). The miner lists pairs of anchor and positive ([`Pairs`]), finds the negatives that qualify
//! for each ([`Band`]), and picks some of these ([`Pick`]). Positives and negatives come from the same set as
//! the anchors, or from a second set, the references.
//!
//! [`exact`] defines the distance: squared L2 in float64. Distances are compared and returned on the scale of
//! the [`Metric`].
//!
//! What is too much for one call is mined in blocks: [`collect`] finds what may be picked from one block of the
//! negatives, and [`merge()`] makes of several such parts the part of them all. [`finish`] makes of the part of
//! all blocks what [`mine()`] returns. They agree on [`picked`], which says what is kept of the negatives of a pair.
//!
//! # Words
//!
//! *The data.* A *row* is an index into the caller's arrays. Inside, rows are sorted by label and id, so that
//! an identity is a range ([`points`]): a *place* is an index into that order. A *rank* is an index among all
//! ids in ascending order. The *candidates* are the rows that negatives come from.
//!
//! *The draw* ([`hash`]). A row has a *hash*. For one anchor it has a *spread*, 16 bits. A pair has a *key*,
//! which maps each spread to a *draw*. A random pick is the qualifying negative with the smallest draw. Pairs and
//! triplets have *lots*: where an anchor may have only so many, those with the smallest are used.
//!
//! *The work.* A search has one *stage*, or two where a random pick leaves out the nearest: the first finds these, and
//! the second looks behind them ([`picked`]). A *round* is the anchors of about 1,048,576 pairs ([`mine`](mod@mine)). Its first step
//! ([`probe`]) takes them in *units* of 16, draws for each pair, and *tests* the few candidates with the
//! smallest draws: evaluates their exact distances, for several pairs side by side ([`hits`]). A pair is *settled* when its picks can no longer change,
//! else it is *open*. The second step ([`sweep`]) takes the anchors with open pairs in *blocks* of 24,
//! estimates their distances to all candidates by the [`screen`], and tests only those that may qualify. Where
//! that pays, a [`sieve`] between both takes most anchors at half the price.
//!
//! *The screen.* A pair looks for distances in its *window*, the interval that its band and metric give.
//! Candidates are coded (a *step* and whole numbers, the *codes*) and packed in *panels* of 32; a *lane* is
//! the 4 bytes of codes that one instruction multiplies. A block of anchors times a panel gives *estimates*,
//! and these are kept for a *stretch* of 320 panels. *Bounds* are what an estimate proves about a distance;
//! *edges* are a window in the form that is compared with estimates.
//!
//! # Files
//!
//! Read them in this order: [`options`] and [`band`], [`points`] and [`pairs`], [`hash`], [`exact`] and [`weight`]
//! (these three are the definition), [`search`], [`picked`] and [`hits`] (what both steps share), [`probe`] with [`scan`],
//! [`sweep`] with [`screen`], [`nearest`] and [`weighted`] with [`narrow`], [`sieve`], [`farthest`], [`found`], and
//! [`mine`](mod@mine), which joins them. [`partial`] merges what was found in blocks. [`scatter`] tells whether the
//! rows are all but equal.
#![doc = include_str!("example.md")]

use crate::{Error, Result};

mod band;
#[cfg(test)]
mod definition;
mod exact;
#[cfg(test)]
mod example;
mod farthest;
mod found;
mod hash;
mod hits;
#[cfg(feature = "kernels")]
pub mod kernels;
mod mine;
mod narrow;
mod nearest;
mod options;
mod pairs;
mod partial;
mod picked;
mod points;
mod probe;
mod scan;
mod scatter;
mod screen;
mod search;
mod shortage;
mod sieve;
mod sweep;
mod weight;
mod weighted;

pub use band::{Band, Limit, MOST_LIMITS, Side};
pub use mine::{collect, mine};
pub use options::{Metric, Options, Pairs, Pick, Ranks};
pub use partial::{finish, merge};

/// What to mine.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// D, at least 1.
    pub dim: usize,
    /// Where anchors come from, and without references positives and negatives, too.
    pub anchors: Rows<'a>,
    /// Which of these are anchors, by row; without it all are. The others are positives and negatives only.
    pub only: Option<&'a [bool]>,
    /// Where positives and negatives come from. Both sets have ids, or neither. A reference with the id of an
    /// anchor is that anchor, and has its label.
    pub references: Option<Rows<'a>>,
    /// Where negatives come from, if not from all rows that positives come from.
    pub block: Option<Rows<'a>>,
    /// Parts the identities in two, those with smaller labels and the others. The negatives of a row are then those of
    /// the other part.
    pub between: Option<i64>,
}

/// One set of rows.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// `(N, dim)` finite numbers, row after row.
    pub embeddings: &'a [f32],
    /// N identities.
    pub labels: &'a [i64],
    /// N unique numbers. With them, the picks and the order of the triplets depend on ids, otherwise on the
    /// positions of the rows.
    pub ids: Option<&'a [i64]>,
}

/// Triplets in ascending order of (anchor id, positive id, negative id), and counts of the work.
#[derive(Debug, Default, Clone)]
pub struct Triplets {
    /// Ids of the anchors, or their rows if no ids were given.
    pub anchor: Vec<i64>,
    /// Ids of the positives.
    pub positive: Vec<i64>,
    /// Ids of the negatives.
    pub negative: Vec<i64>,
    /// Distances of anchor and positive.
    pub d_ap: Vec<f64>,
    /// Distances of anchor and negative.
    pub d_an: Vec<f64>,
    /// Counts.
    pub stats: Stats,
    /// How far apart candidates of different identities are: the median squared distance of two, divided by
    /// the mean of their squared norms. None if all are of one identity.
    pub scatter: Option<f64>,
}

/// Counts of what [`mine`] did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stats {
    /// Pairs for which negatives were looked for.
    pub pairs: u64,
    /// Pairs skipped because of [`Options::max_ap`].
    pub pairs_over_max_ap: u64,
    /// Pairs for which no negative qualified.
    pub pairs_without_negative: u64,
    /// Pairs that the tests of the few rows with the smallest draws did not settle.
    pub pairs_screened: u64,
    /// Float64 distances evaluated for negatives.
    pub exact_distances: u64,
}

impl Stats {
    fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.pairs_over_max_ap += other.pairs_over_max_ap;
        self.pairs_without_negative += other.pairs_without_negative;
        self.pairs_screened += other.pairs_screened;
        self.exact_distances += other.exact_distances;
    }
}

/// The screen's bound is proven up to this number of columns.
const MOST_DIMENSIONS: usize = 1 << 20;

impl<'a> Input<'a> {
    /// All of these are anchors, and negatives come from where positives come from.
    pub const fn new(dim: usize, anchors: Rows<'a>, references: Option<Rows<'a>>) -> Self {
        Self { dim, anchors, only: None, references, block: None, between: None }
    }

    fn check(&self) -> Result<()> {
        if self.dim == 0 {
            return Err(Error::Value("embeddings have no columns".into()));
        }
        if self.dim > MOST_DIMENSIONS {
            return Err(Error::Value(format!(
                "embeddings have {} columns; at most {MOST_DIMENSIONS} are possible",
                self.dim
            )));
        }
        self.anchors.check("embeddings", self.dim)?;
        if let Some(only) = self.only.filter(|only| only.len() != self.anchors.labels.len()) {
            let rows = self.anchors.labels.len();
            return Err(Error::Value(format!("{} rows are called anchors or not, of {rows}", only.len())));
        }
        for (name, rows) in [("references", self.references), ("rows of a block", self.block)] {
            let Some(rows) = rows else { continue };
            rows.check(name, self.dim)?;
            if self.anchors.ids.is_some() != rows.ids.is_some() {
                return Err(Error::Value("ids are needed for all sets, or for none".into()));
            }
        }
        Ok(())
    }
}

impl Rows<'_> {
    fn check(&self, name: &str, dim: usize) -> Result<()> {
        let n = self.labels.len();
        if self.embeddings.len() != n * dim {
            return Err(Error::Value(format!(
                "{} numbers are not {n} {name} of {dim} columns",
                self.embeddings.len(),
            )));
        }
        if let Some(ids) = self.ids.filter(|ids| ids.len() != n) {
            return Err(Error::Value(format!("{} ids for {n} {name}", ids.len())));
        }
        few_enough(n, name)
    }
}

/// Places and ranks are numbers of 32 bits.
fn few_enough(n: usize, name: &str) -> Result<()> {
    if n > i32::MAX as usize {
        return Err(Error::Value(format!("{n} {name} in one call; at most {} are possible", i32::MAX)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interrupt, Isa};

    fn rows<'a>(embeddings: &'a [f32], labels: &'a [i64], ids: Option<&'a [i64]>) -> Rows<'a> {
        Rows { embeddings, labels, ids }
    }

    #[track_caller]
    fn is_wrong(input: &Input, words: &str) {
        for run in [mine, collect] {
            let error = run(input, &Options::DEFAULT, &Interrupt::new()).expect_err(words);
            assert!(matches!(error, Error::Value(_)) && error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn what_is_given_must_fit() {
        let good = rows(&[0.0; 6], &[1, 1, 2], Some(&[7, 8, 9]));
        assert!(mine(&Input::new(2, good, Some(good)), &Options::DEFAULT, &Interrupt::new()).is_ok());
        is_wrong(&Input::new(0, good, None), "no columns");
        is_wrong(&Input::new(3, good, None), "6 numbers are not 3 embeddings of 3 columns");
        let wide = vec![0.5; (1 << 20) + 1];
        is_wrong(&Input::new(wide.len(), rows(&wide, &[1], None), None), "1048577 columns; at most 1048576");
        let widest = Input::new(1 << 20, rows(&wide[1..], &[1], None), None);
        assert!(mine(&widest, &Options::DEFAULT, &Interrupt::new()).is_ok());
        is_wrong(&Input::new(2, rows(&[0.0; 6], &[1, 1, 2], Some(&[7, 8])), None), "2 ids for 3 embeddings");
        is_wrong(&Input::new(2, rows(&[0.0; 6], &[1, 1, 2], Some(&[7, 8, 7])), None), "share the id 7");
        is_wrong(&Input::new(2, good, Some(rows(&[0.0; 5], &[1, 1], Some(&[7, 8])))), "not 2 references");
        let without_ids = rows(&[0.0; 6], &[1, 1, 2], None);
        is_wrong(&Input::new(2, good, Some(without_ids)), "for all sets, or for none");
        is_wrong(&Input::new(2, without_ids, Some(good)), "for all sets, or for none");
        let block = |block| Input { block: Some(block), ..Input::new(2, good, None) };
        is_wrong(&block(without_ids), "for all sets, or for none");
        is_wrong(&block(rows(&[0.0; 5], &[1], Some(&[3]))), "not 1 rows of a block");
        is_wrong(&Input { only: Some(&[true; 2]), ..Input::new(2, good, None) }, "2 rows are called anchors");
        assert!(few_enough(i32::MAX as usize, "rows").is_ok());
        let error = few_enough(1 << 31, "rows").unwrap_err().to_string();
        assert!(error.contains("2147483648 rows in one call; at most 2147483647"), "{error}");
    }

    #[test]
    fn options_must_make_sense() {
        let check = |options: Options| options.check().map_err(|error| error.to_string());
        let plain = Options::DEFAULT;
        assert!(check(plain).is_ok());
        for (options, words) in [
            (Options { negatives_per_pair: 0, ..plain }, "negatives_per_pair is 0"),
            (Options { positives_per_anchor: Some(0), ..plain }, "positives_per_anchor is 0"),
            (Options { triplets_per_anchor: Some(0), ..plain }, "triplets_per_anchor is 0"),
            (Options { ranks: Ranks { first: 3, end: 3 }, ..plain }, "from 3 to 3 hold no negative"),
            (Options { max_ap: Some(-1e-9), ..plain }, "max_ap is -0.000000001"),
            (Options { max_ap: Some(f64::NAN), ..plain }, "max_ap is NaN"),
            (Options { band: Band::violating(f64::NAN), ..plain }, "is no number"),
        ] {
            assert!(check(options).unwrap_err().contains(words), "{words}");
        }
        let limit = |slope| Limit { side: Side::Above, inclusive: true, slope, offset: 0.0 };
        assert!(check(Options { band: Band::of(&[limit(f64::INFINITY)]).unwrap(), ..plain }).is_err());
        assert!(check(Options { band: Band::of(&[limit(f64::NAN)]).unwrap(), ..plain }).is_err());
        assert!(check(Options { band: Band::violating(f64::INFINITY), ..plain }).is_ok());
        assert!(check(Options { max_ap: Some(0.0), ranks: Ranks { first: 3, end: 4 }, ..plain }).is_ok());
        let five = [limit(1.0); MOST_LIMITS + 1];
        assert!(Band::of(&five).is_none() && Band::of(&five[1..]).is_some());
    }

    #[test]
    #[allow(clippy::float_cmp)] // to the last bit
    fn the_interval_of_a_band() {
        let (d_ap, margin) = (1.5, 0.25);
        let (lowest, highest) = (f64::NEG_INFINITY, f64::INFINITY);
        assert_eq!(Band::semihard(margin).interval(d_ap), (1.5, 1.75));
        assert_eq!(Band::violating(margin).interval(d_ap), (lowest, 1.75));
        assert_eq!(Band::HARD.interval(d_ap), (lowest, 1.5_f64.next_up()));
        assert_eq!(Band::easy(margin).interval(d_ap), (1.75_f64.next_down(), highest));
        assert_eq!(Band::ANY.interval(d_ap), (lowest.next_down(), highest));
        assert_eq!(Band::default(), Band::ANY);
        // The narrowest of several, at which an edge that is left out counts more.
        let limit = |side, inclusive, slope, offset| Limit { side, inclusive, slope, offset };
        let band = Band::of(&[
            limit(Side::Above, true, 2.0, -2.0),
            limit(Side::Above, false, 0.0, 1.0),
            limit(Side::Below, true, -1.0, 4.0),
            limit(Side::Below, false, 1.0, 1.25),
        ]);
        assert_eq!(band.unwrap().interval(d_ap), (1.0, 2.5_f64.next_up()));
        assert_eq!(band.unwrap().interval(1.0), (1.0, 2.25));
        assert_eq!(band.unwrap().interval(2.0), (2.0_f64.next_down(), 2.0_f64.next_up()));
    }

    #[test]
    fn parts_that_do_not_belong_together() {
        let (labels, ids) = ([1, 1, 2, 2, 3], [1, 2, 3, 4, 5]);
        let embeddings: Vec<f32> = (0..10).map(|at| at as f32).collect();
        let anchors = rows(&embeddings, &labels, Some(&ids));
        let options = Options {
            band: Band::ANY,
            pick: Pick::All,
            max_ap: Some(9.0),
            normalize: false,
            ..Options::DEFAULT
        };
        let part = |rows: std::ops::Range<usize>, options: &Options| {
            let (embeddings, labels) = (&embeddings[2 * rows.start..2 * rows.end], &labels[rows.clone()]);
            let block = Some(super::Rows { embeddings, labels, ids: Some(&ids[rows]) });
            collect(&Input { block, ..Input::new(2, anchors, None) }, options, &Interrupt::new()).unwrap()
        };
        let join = |parts: &[Triplets]| merge(parts, &options, 2, &Interrupt::new());
        let parts = [part(0..2, &options), part(2..5, &options)];
        let whole = mine(&Input::new(2, anchors, None), &options, &Interrupt::new()).unwrap();
        let joined = join(&parts).unwrap();
        assert_eq!((&joined.anchor, &joined.negative), (&whole.anchor, &whole.negative));
        assert_eq!((joined.stats.pairs, whole.stats.pairs), (2, 2));
        assert_eq!(
            joined.stats.exact_distances,
            parts.iter().map(|part| part.stats.exact_distances).sum::<u64>()
        );
        assert!(join(&[]).unwrap().anchor.is_empty());
        let error = join(&[parts[0].clone(), part(1..5, &options)]).unwrap_err().to_string();
        assert!(error.contains("in two of the parts"), "{error}");
        for other in [Options { pairs: Pairs::Ordered, ..options }, Options { max_ap: Some(7.0), ..options }]
        {
            let error = join(&[parts[0].clone(), part(2..5, &other)]).unwrap_err().to_string();
            assert!(error.contains("are not of the same anchors"), "{error}");
        }
        // As many pairs over `max_ap` count, too.
        let mut other = parts[1].clone();
        other.stats.pairs_over_max_ap += 1;
        assert!(join(&[parts[0].clone(), other]).is_err());
        let raised = Interrupt::new();
        raised.raise();
        assert!(
            merge(&parts, &options, 2, &raised).is_err() && finish(&joined, &options, 2, &raised).is_err()
        );
        let wrong = Options { negatives_per_pair: 0, ..options };
        assert!(merge(&parts, &wrong, 2, &Interrupt::new()).is_err());
        assert!(finish(&joined, &wrong, 2, &Interrupt::new()).is_err());
        assert!(Isa::available().contains(&Isa::PORTABLE));
    }
}
