//! Small sets of rows with all options, on all instruction sets, against the definition: equal triplets, distances
//! and counts.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use fasttriplet::mining::{
    Band, Input, Limit, Metric, Options, Pairs, Pick, Ranks, Side, Triplets, collect, finish, merge, mine,
};
use fasttriplet::{Interrupt, Isa, simd};

use crate::naive::mining::{self as naive, Mined, Set, of_anchors};

/// A thread more than a round of few anchors has work for.
static THREE: LazyLock<rayon::ThreadPool> =
    LazyLock::new(|| rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("three threads"));

/// `data` describes a [`Case`].
pub fn check(data: &[u8]) {
    let Ok(case) = Case::from(&mut Unstructured::new(data)) else { return };
    let references = case.references.as_ref().map(|set| set.rows(case.ids_given));
    let input = Input::new(case.dim, case.anchors.rows(case.ids_given), references);
    let expected = naive::mine(&input, &case.options);
    for isa in Isa::available() {
        // SAFETY: no code of another language runs in this process that reads the environment at the same time;
        // the standard library has a lock for its own readers.
        unsafe { std::env::set_var(simd::FORCE, isa.name()) };
        let run = || mine(&input, &case.options, &Interrupt::new()).expect("valid input");
        let found = if case.three_threads { THREE.install(run) } else { run() };
        let mined = Mined::of(&found);
        assert!(mined == expected, "{}: {mined:?}\nexpected {expected:?}\nof {case:?}", isa.name());
    }
    if case.ids_given && !case.blocks.is_empty() {
        let mined = case.mined_in_blocks();
        assert!(mined == expected, "in blocks: {mined:?}\nexpected {expected:?}\nof {case:?}");
    }
}

/// What is mined.
#[derive(Debug)]
struct Case {
    dim: usize,
    anchors: Set,
    references: Option<Set>,
    ids_given: bool,
    options: Options,
    three_threads: bool,
    /// Each negative goes to one of some blocks by these numbers in turn, each anchor to one of two groups, and the
    /// order of merging follows them, too. Empty: no blocks.
    blocks: Vec<u8>,
}

impl Case {
    /// The same by blocks of negatives and groups of anchors: collected, merged and finished.
    fn mined_in_blocks(&self) -> Mined {
        let of = |row: usize| usize::from(self.blocks[row % self.blocks.len()]);
        let all_anchors = 0..self.anchors.labels.len();
        let between = self.split();
        // Negatives of the anchors' part of the identities go to some of the blocks; those of the other part are
        // looked for in one call for the anchors of both.
        let across = between.map(|_| self.collected(None, None, between));
        let mut all = Mined::default();
        for group in 0..2 {
            let only: Vec<bool> = all_anchors
                .clone()
                .map(|row| match between {
                    None => of(row) / 4 % 2 == group,
                    Some(split) => (self.anchors.labels[row] < split) == (group == 0),
                })
                .collect();
            let mut parts: Vec<Triplets> = (0..4)
                .map(|block| {
                    let candidates = self.references.as_ref().unwrap_or(&self.anchors);
                    let block = candidates.part(self.dim, |row| {
                        of(row) % 4 == block
                            && between.is_none_or(|split| (candidates.labels[row] < split) == (group == 0))
                    });
                    self.collected(Some(&only), Some(&block), None)
                })
                .collect();
            if let Some(across) = &across {
                let ids: Vec<i64> =
                    all_anchors.clone().filter(|&row| only[row]).map(|row| self.anchors.ids[row]).collect();
                parts.push(of_anchors(across, &ids, parts[0].stats));
            }
            for step in 0..parts.len() - 1 {
                let first = parts.swap_remove(of(step) % parts.len());
                let second = parts.swap_remove(of(step + 1) % parts.len());
                parts.push(
                    merge(&[first, second], &self.options, self.dim, &Interrupt::new())
                        .expect("parts of the same anchors"),
                );
            }
            let found = finish(&parts[0], &self.options, self.dim, &Interrupt::new()).expect("a part");
            let mut mined = Mined::of(&found);
            all.triplets.append(&mut mined.triplets);
            all.pairs += mined.pairs;
            all.over_max_ap += mined.over_max_ap;
            all.without_negative += mined.without_negative;
        }
        all.triplets.sort_unstable();
        all
    }

    /// A label at which the identities are parted in two, in half of the cases.
    fn split(&self) -> Option<i64> {
        let at = usize::from(self.blocks[0]);
        self.anchors.labels.get(at / 8 % self.anchors.labels.len().max(1)).copied().filter(|_| at % 2 == 1)
    }

    fn collected(&self, only: Option<&[bool]>, block: Option<&Set>, between: Option<i64>) -> Triplets {
        let input = Input {
            dim: self.dim,
            anchors: self.anchors.rows(true),
            only,
            references: self.references.as_ref().map(|set| set.rows(true)),
            block: block.map(|set| set.rows(true)),
            between,
        };
        collect(&input, &self.options, &Interrupt::new()).expect("valid input")
    }
}

/// Numbers at the edges of float32.
const EDGES: [f32; 12] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::MIN_POSITIVE,
    1e-45, // the smallest subnormal
    -1e-40,
    f32::EPSILON,
    1.0 + f32::EPSILON,
    1e19,
    f32::MAX,
    f32::MIN,
];

impl Case {
    fn from(bytes: &mut Unstructured) -> Result<Self> {
        let dim = bytes.int_in_range(1..=40)?;
        // By its exponent a screen with whole numbers or a bound can lose what a float64 distance sees.
        let scale = 2_f32.powi(if bytes.ratio(1, 4)? { bytes.int_in_range(-140..=120)? } else { 0 });
        let options = Options {
            band: band(bytes, scale)?,
            ranks: if bytes.ratio(1, 3)? { ranks(bytes)? } else { Ranks::ALL },
            pick: *bytes.choose(&[Pick::Random, Pick::Hardest, Pick::Distance, Pick::All])?,
            negatives_per_pair: *bytes.choose(&[1, 2, 3, 10, 70, usize::MAX])?,
            fallback: bytes.ratio(1, 4)?,
            pairs: *bytes.choose(&[Pairs::Unordered, Pairs::Ordered, Pairs::Hardest, Pairs::Easiest])?,
            positives_per_anchor: some(bytes)?,
            triplets_per_anchor: some(bytes)?,
            metric: *bytes.choose(&[Metric::SquaredEuclidean, Metric::Euclidean, Metric::Cosine])?,
            max_ap: if bytes.ratio(1, 4)? { Some(distance(bytes, scale)?) } else { None },
            normalize: bytes.arbitrary()?,
            seed: bytes.arbitrary()?,
        };
        let (ids_given, three_threads) = (bytes.arbitrary()?, bytes.ratio(1, 16)?);
        let (key, two_sets) = (bytes.arbitrary()?, bytes.ratio(1, 3)?);
        let anchors = Set::from(bytes, dim, scale, key)?;
        let references = if two_sets { Some(Set::from(bytes, dim, scale, key)?) } else { None };
        let blocks = if bytes.ratio(1, 3)? { bytes.arbitrary()? } else { Vec::new() };
        let mut case = Self { dim, anchors, references, ids_given, options, three_threads, blocks };
        if let Some(references) = &mut case.references {
            // A reference with the id of an anchor is that anchor.
            for (id, label) in references.ids.iter().zip(&mut references.labels) {
                if let Some(row) = case.anchors.ids.iter().position(|anchor| anchor == id) {
                    *label = case.anchors.labels[row];
                }
            }
        }
        Ok(case)
    }
}

/// One of those with names, or any limits.
fn band(bytes: &mut Unstructured, scale: f32) -> Result<Band> {
    Ok(match bytes.int_in_range(0..=6)? {
        0 => Band::semihard(distance(bytes, scale)?),
        1 => Band::violating(distance(bytes, scale)?),
        2 => Band::easy(distance(bytes, scale)?),
        3 => Band::HARD,
        4 => Band::ANY,
        _ => {
            let count = bytes.int_in_range(0..=4)?;
            let mut limits = Vec::new();
            for _ in 0..count {
                let (offset, negative) = (distance(bytes, scale)?, bytes.arbitrary()?);
                limits.push(Limit {
                    side: *bytes.choose(&[Side::Above, Side::Below])?,
                    inclusive: bytes.arbitrary()?,
                    slope: *bytes.choose(&[0.0, 0.5, 1.0, -1.0, 1.25])?,
                    offset: if negative { -offset } else { offset },
                });
            }
            Band::of(&limits).unwrap_or_default()
        }
    })
}

fn ranks(bytes: &mut Unstructured) -> Result<Ranks> {
    let first = bytes.int_in_range(0..=12)?;
    let end = if bytes.arbitrary()? { first + bytes.int_in_range(1..=30)? } else { usize::MAX };
    Ok(Ranks { first, end })
}

fn some(bytes: &mut Unstructured) -> Result<Option<usize>> {
    Ok(if bytes.ratio(1, 4)? { Some(bytes.int_in_range(1..=5)?) } else { None })
}

/// A distance on the scale of the rows, where ties are likely, or any.
fn distance(bytes: &mut Unstructured, scale: f32) -> Result<f64> {
    let scale = f64::from(scale);
    Ok(match bytes.int_in_range(0..=5)? {
        0 => f64::from(bytes.arbitrary::<u8>()?) * scale * scale,
        1 => f64::from(bytes.arbitrary::<u8>()?) / 64.0 * scale,
        2 => f64::from(bytes.arbitrary::<u16>()?) / 32768.0,
        3 => 0.0,
        4 => f64::INFINITY,
        _ => Some(bytes.arbitrary::<f64>()?.abs()).filter(|any| !any.is_nan()).unwrap_or(f64::MAX),
    })
}

impl Set {
    /// Rows of one kind. The ids of both sets are mixed with the same `key`, so that some are in both.
    fn from(bytes: &mut Unstructured, dim: usize, scale: f32, key: u64) -> Result<Self> {
        let kind = bytes.int_in_range(0..=5)?;
        let drawn = kind >= 3;
        let most = if drawn { 128 } else { 40 };
        let (count, identities) = (bytes.int_in_range(0..=most)?, bytes.int_in_range(1..=60)?);
        let (first, stride) = (bytes.int_in_range(0..=most)?, bytes.arbitrary::<i64>()?);
        let mut random = bytes.arbitrary::<u64>()?;
        let mut labels: Vec<i64> = Vec::new();
        let mut embeddings: Vec<f32> = Vec::new();
        for row in 0..count {
            let identity = if drawn {
                next(&mut random) % identities
            } else {
                bytes.int_in_range(0..=identities - 1)?
            };
            labels.push((identity as i64).wrapping_mul(stride));
            for column in 0..dim {
                let mut uniform = || next(&mut random) as f32 / u64::MAX as f32 - 0.5;
                let number = match kind {
                    0 => f32::from(bytes.arbitrary::<i8>()?) * scale,
                    1 => *bytes.choose(&EDGES)?,
                    2 => bytes.arbitrary::<f32>()?,
                    3 => (uniform() * 5.0).round() * scale, // -2 to 2: most distances tie
                    4 => uniform() * scale,
                    // Clusters: `identity` chooses a direction.
                    _ => (uniform() + if column as u64 == identity % dim as u64 { 4.0 } else { 0.0 }) * scale,
                };
                embeddings.push(if number.is_finite() { number } else { row as f32 });
            }
        }
        let ids = (0..count as u64).map(|row| ((row + first as u64) ^ key) as i64).collect();
        Ok(Self { embeddings, labels, ids })
    }
}

/// The next number of `SplitMix64`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
