//! Mining by its definition: float64 distances of all pairs of rows, and a keyed draw for each negative.
//! Also what tests and the fuzz target need to compare the miner with it: sets of rows, and what was found.

use fasttriplet::mining::{Input, Limit, Metric, Options, Pairs, Pick, Rows, Side, Stats, Triplets};

/// Ids of anchor, positive and negative, and the bits of the distances of anchor and positive, and of anchor and
/// negative.
pub type Triplet = (i64, i64, i64, u64, u64);

/// What is mined.
#[derive(Debug, Default, PartialEq)]
pub struct Mined {
    /// In ascending order.
    pub triplets: Vec<Triplet>,
    /// Pairs for which negatives were looked for.
    pub pairs: u64,
    /// Pairs with a larger distance than `max_ap`.
    pub over_max_ap: u64,
    /// Pairs without a qualifying negative.
    pub without_negative: u64,
}

impl Mined {
    /// What the miner found.
    pub fn of(found: &Triplets) -> Self {
        let triplet = |i: usize| {
            let [d_ap, d_an] = [found.d_ap[i], found.d_an[i]].map(f64::to_bits);
            (found.anchor[i], found.positive[i], found.negative[i], d_ap, d_an)
        };
        Self {
            triplets: (0..found.anchor.len()).map(triplet).collect(),
            pairs: found.stats.pairs,
            over_max_ap: found.stats.pairs_over_max_ap,
            without_negative: found.stats.pairs_without_negative,
        }
    }
}

/// What a part has of some anchors, which have these counts of pairs.
pub fn of_anchors(part: &Triplets, anchors: &[i64], stats: Stats) -> Triplets {
    let mut some = Triplets { stats, ..Triplets::default() };
    for i in (0..part.anchor.len()).filter(|&i| anchors.contains(&part.anchor[i])) {
        some.anchor.push(part.anchor[i]);
        some.positive.push(part.positive[i]);
        some.negative.push(part.negative[i]);
        some.d_ap.push(part.d_ap[i]);
        some.d_an.push(part.d_an[i]);
    }
    some
}

/// The rows of a set, before they are normalised.
#[derive(Debug)]
pub struct Set {
    /// Row after row.
    pub embeddings: Vec<f32>,
    /// The identity of each row.
    pub labels: Vec<i64>,
    /// The id of each row.
    pub ids: Vec<i64>,
}

impl Set {
    /// As the miner takes them.
    pub fn rows(&self, ids_given: bool) -> Rows<'_> {
        Rows { embeddings: &self.embeddings, labels: &self.labels, ids: ids_given.then_some(&self.ids) }
    }

    /// Some of its rows.
    #[must_use]
    pub fn part(&self, dim: usize, holds: impl Fn(usize) -> bool) -> Self {
        let rows: Vec<usize> = (0..self.labels.len()).filter(|&row| holds(row)).collect();
        Self {
            embeddings: rows.iter().flat_map(|row| &self.embeddings[row * dim..][..dim]).copied().collect(),
            labels: rows.iter().map(|&row| self.labels[row]).collect(),
            ids: rows.iter().map(|&row| self.ids[row]).collect(),
        }
    }
}

/// A row, normalised if that is asked for.
pub struct Row {
    /// Its numbers.
    pub values: Vec<f32>,
    /// Its identity.
    pub label: i64,
    /// Its id.
    pub id: i64,
}

/// All triplets, anchor by anchor.
pub fn mine(input: &Input, options: &Options) -> Mined {
    let anchors = rows(&input.anchors, input.dim, options.normalize);
    let references = input.references.map(|references| rows(&references, input.dim, options.normalize));
    let alone = references.is_none();
    let others = references.as_ref().unwrap_or(&anchors);
    let itself = |a: usize, p: usize| {
        if alone { a == p } else { input.anchors.ids.is_some() && anchors[a].id == others[p].id }
    };
    let mut mined = Mined::default();
    for (a, anchor) in anchors.iter().enumerate() {
        let d: Vec<f64> = others.iter().map(|other| distance(anchor, other, options.metric)).collect();
        let each_once = alone && options.pairs == Pairs::Unordered;
        let mut positives: Vec<usize> = (0..others.len())
            .filter(|&p| others[p].label == anchor.label && !itself(a, p) && (!each_once || a < p))
            .collect();
        let all = positives.len();
        positives.retain(|&p| options.max_ap.is_none_or(|max_ap| d[p] <= max_ap));
        mined.over_max_ap += (all - positives.len()) as u64;
        positives.sort_by_key(|&p| others[p].id);
        let lot = |p: usize| mix64(pair_key(options.seed, anchor.id, others[p].id).wrapping_add(GOLDEN));
        match options.pairs {
            Pairs::Hardest => positives.sort_by(|&p, &q| d[q].total_cmp(&d[p])),
            Pairs::Easiest => positives.sort_by(|&p, &q| d[p].total_cmp(&d[q])),
            Pairs::Ordered | Pairs::Unordered if options.positives_per_anchor.is_some() => {
                positives.sort_by_key(|&p| lot(p));
            }
            Pairs::Ordered | Pairs::Unordered => {}
        }
        let one = matches!(options.pairs, Pairs::Hardest | Pairs::Easiest).then_some(1);
        positives.truncate(options.positives_per_anchor.or(one).unwrap_or(usize::MAX));
        let mut of_anchor: Vec<(u64, Triplet)> = Vec::new();
        for p in positives {
            let negatives = (0..others.len()).filter(|&n| others[n].label != anchor.label);
            let mut qualified: Vec<usize> =
                negatives.clone().filter(|&n| qualifies(d[p], d[n], options.band.limits())).collect();
            let draw = |n: usize| draw(options.seed, anchor.id, others[p].id, others[n].id);
            qualified.sort_by_cached_key(|&n| draw(n));
            // A stable sort keeps equal distances in the order of their draws.
            qualified.sort_by(|&n, &m| d[n].total_cmp(&d[m]));
            let mut chosen: Vec<usize> =
                qualified.into_iter().take(options.ranks.end).skip(options.ranks.first).collect();
            match options.pick {
                Pick::Random => chosen.sort_by_cached_key(|&n| draw(n)),
                Pick::Distance => {
                    chosen.sort_by_cached_key(|&n| draw(n));
                    let key = |n: usize| weighted(draw(n), squared(d[n], options.metric), input.dim);
                    chosen.sort_by(|&n, &m| key(n).total_cmp(&key(m)));
                }
                Pick::Hardest | Pick::All => {}
            }
            if options.pick != Pick::All {
                chosen.truncate(options.negatives_per_pair);
            }
            if chosen.is_empty() && options.fallback {
                chosen.extend(
                    negatives.max_by(|&n, &m| d[n].total_cmp(&d[m]).then(others[m].id.cmp(&others[n].id))),
                );
            }
            mined.pairs += 1;
            mined.without_negative += u64::from(chosen.is_empty());
            of_anchor.extend(chosen.into_iter().map(|n| {
                let lot = mix64(draw(n).1.wrapping_add(GOLDEN));
                (lot, (anchor.id, others[p].id, others[n].id, d[p].to_bits(), d[n].to_bits()))
            }));
        }
        of_anchor.sort_unstable();
        of_anchor.truncate(options.triplets_per_anchor.unwrap_or(usize::MAX));
        mined.triplets.extend(of_anchor.into_iter().map(|(_, triplet)| triplet));
    }
    mined.triplets.sort_unstable();
    mined
}

/// The rows of a set.
pub fn rows(set: &Rows, dim: usize, normalize: bool) -> Vec<Row> {
    let row = |(row, values): (usize, &[f32])| {
        let norm = sum(values.iter().map(|&x| f64::from(x) * f64::from(x))).sqrt();
        let divide = |&x: &f32| if normalize && norm > 0.0 { (f64::from(x) / norm) as f32 } else { x };
        let id = set.ids.map_or(row as i64, |ids| ids[row]);
        Row { values: values.iter().map(divide).collect(), label: set.labels[row], id }
    };
    set.embeddings.chunks_exact(dim).enumerate().map(row).collect()
}

/// On the scale of a metric.
pub fn distance(a: &Row, b: &Row, metric: Metric) -> f64 {
    let differences = a.values.iter().zip(&b.values).map(|(&x, &y)| f64::from(x) - f64::from(y));
    let squared = sum(differences.map(|difference| difference * difference));
    match metric {
        Metric::SquaredEuclidean => squared,
        Metric::Euclidean => squared.sqrt(),
        Metric::Cosine => squared / 2.0,
    }
}

/// The order in which numbers are added is part of the definition: in 8 lanes in turn, then halves to halves.
pub fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; 8];
    for (k, number) in numbers.enumerate() {
        lanes[k % 8] += number;
    }
    let four = [0, 1, 2, 3].map(|k| lanes[k] + lanes[k + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

#[allow(clippy::float_cmp)] // at the edge, to the last bit
fn qualifies(d_ap: f64, d_an: f64, limits: &[Limit]) -> bool {
    limits.iter().all(|limit| {
        let edge = limit.slope * d_ap + limit.offset;
        match limit.side {
            Side::Above => d_an > edge || limit.inclusive && d_an == edge,
            Side::Below => d_an < edge || limit.inclusive && d_an == edge,
        }
    })
}

/// The squared L2 distance of a distance on a metric's scale.
fn squared(d: f64, metric: Metric) -> f64 {
    match metric {
        Metric::SquaredEuclidean => d,
        Metric::Euclidean => d * d,
        Metric::Cosine => 2.0 * d,
    }
}

/// `ln(-ln(1 - u)) - ln(w)` of a distance-weighted pick.
fn weighted(draw: (u16, u64), squared: f64, dim: usize) -> f64 {
    let number = u64::from(draw.0) << 36 | draw.1 >> 28;
    let u = (number as f64 + 0.5) / (1_u64 << 52) as f64;
    let (s, dim) = (squared.clamp(0.25, 2.0), dim as f64);
    let ln_weight =
        -(((dim - 2.0) / 2.0).max(0.0) * ln(s) + ((dim - 3.0) / 2.0).max(0.0) * ln(1.0 - s / 4.0));
    ln(-ln(1.0 - u)) - ln_weight
}

/// The logarithm, as it is defined: `ln(2^e m) = e ln(2) + 2 artanh((m - 1) / (m + 1))`, by 11 terms of the series.
fn ln(x: f64) -> f64 {
    let mut exponent = 0.0;
    let mut mantissa = x;
    while mantissa < std::f64::consts::FRAC_1_SQRT_2 {
        (mantissa, exponent) = (mantissa * 2.0, exponent - 1.0);
    }
    while mantissa >= std::f64::consts::SQRT_2 {
        (mantissa, exponent) = (mantissa / 2.0, exponent + 1.0);
    }
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..11).rev().fold(0.0, |sum, term| sum * (t * t) + 1.0 / f64::from(2 * term + 1));
    exponent * std::f64::consts::LN_2 + 2.0 * t * series
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix64(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn mix32(z: u32) -> u32 {
    let z = (z ^ (z >> 16)).wrapping_mul(0x21f0_aaad);
    let z = (z ^ (z >> 15)).wrapping_mul(0xd35a_2d97);
    z ^ (z >> 15)
}

/// What a row contributes to draws.
pub fn row_hash(seed: u64, id: i64) -> u64 {
    let seed = mix64(seed.wrapping_add(GOLDEN.wrapping_mul(2)));
    mix64(mix64((id as u64).wrapping_add(GOLDEN)) ^ seed)
}

fn pair_key(seed: u64, anchor: i64, positive: i64) -> u64 {
    mix64(mix64(row_hash(seed, anchor) ^ GOLDEN).wrapping_add(row_hash(seed, positive)))
}

/// The smallest is picked. Of equal 16-bit numbers, the second one decides.
fn draw(seed: u64, anchor: i64, positive: i64, negative: i64) -> (u16, u64) {
    let (pair, negative) = (pair_key(seed, anchor, positive), row_hash(seed, negative));
    let anchor = mix64(row_hash(seed, anchor) ^ GOLDEN);
    let spread = (mix32((negative ^ anchor) as u32) >> 16) as u16;
    ((spread ^ pair as u16).wrapping_mul((pair >> 16) as u16 | 1), mix64(negative ^ pair))
}
