//! Mining by its definition: float64 distances of all pairs of rows, and a keyed draw for each negative.

use fasttriplet::mining::{Band, Input, Metric, Options, Pairs, Pick, Rows};

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

struct Row {
    values: Vec<f32>,
    label: i64,
    id: i64,
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
        match options.pairs {
            Pairs::Hardest => positives.sort_by(|&p, &q| d[q].total_cmp(&d[p])),
            Pairs::Easiest => positives.sort_by(|&p, &q| d[p].total_cmp(&d[q])),
            Pairs::Ordered | Pairs::Unordered => {}
        }
        if matches!(options.pairs, Pairs::Hardest | Pairs::Easiest) {
            positives.truncate(1);
        }
        for p in positives {
            let mut negatives: Vec<usize> = (0..others.len())
                .filter(|&n| others[n].label != anchor.label && qualifies(d[p], d[n], options))
                .collect();
            let draw = |n: &usize| draw(options.seed, anchor.id, others[p].id, others[*n].id);
            if options.pick != Pick::All {
                negatives.sort_by_cached_key(draw);
                if options.pick == Pick::Hardest {
                    negatives.sort_by(|&n, &m| d[n].total_cmp(&d[m]));
                }
                negatives.truncate(options.negatives_per_pair);
            }
            mined.pairs += 1;
            mined.without_negative += u64::from(negatives.is_empty());
            mined.triplets.extend(
                negatives
                    .into_iter()
                    .map(|n| (anchor.id, others[p].id, others[n].id, d[p].to_bits(), d[n].to_bits())),
            );
        }
    }
    mined.triplets.sort_unstable();
    mined
}

fn rows(set: &Rows, dim: usize, normalize: bool) -> Vec<Row> {
    let row = |(row, values): (usize, &[f32])| {
        let norm = sum(values.iter().map(|&x| f64::from(x) * f64::from(x))).sqrt();
        let divide = |&x: &f32| if normalize && norm > 0.0 { (f64::from(x) / norm) as f32 } else { x };
        let id = set.ids.map_or(row as i64, |ids| ids[row]);
        Row { values: values.iter().map(divide).collect(), label: set.labels[row], id }
    };
    set.embeddings.chunks_exact(dim).enumerate().map(row).collect()
}

fn distance(a: &Row, b: &Row, metric: Metric) -> f64 {
    let differences = a.values.iter().zip(&b.values).map(|(&x, &y)| f64::from(x) - f64::from(y));
    let squared = sum(differences.map(|difference| difference * difference));
    match metric {
        Metric::SquaredEuclidean => squared,
        Metric::Euclidean => squared.sqrt(),
        Metric::Cosine => squared / 2.0,
    }
}

/// The order in which numbers are added is part of the definition: in 8 lanes in turn, then halves to halves.
fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; 8];
    for (k, number) in numbers.enumerate() {
        lanes[k % 8] += number;
    }
    let four = [0, 1, 2, 3].map(|k| lanes[k] + lanes[k + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

fn qualifies(d_ap: f64, d_an: f64, options: &Options) -> bool {
    match options.band {
        Band::Semihard => d_ap < d_an && d_an < d_ap + options.margin,
        Band::Violating => d_an < d_ap + options.margin,
        Band::Hard => d_an <= d_ap,
        Band::Any => true,
    }
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

/// The smallest is picked. Of equal 16-bit numbers, the second one decides.
fn draw(seed: u64, anchor: i64, positive: i64, negative: i64) -> (u16, u64) {
    let seed = mix64(seed.wrapping_add(GOLDEN.wrapping_mul(2)));
    let [anchor, positive, negative] =
        [anchor, positive, negative].map(|id| mix64(mix64((id as u64).wrapping_add(GOLDEN)) ^ seed));
    let anchor = mix64(anchor ^ GOLDEN);
    let pair = mix64(anchor.wrapping_add(positive));
    let spread = (mix32((negative ^ anchor) as u32) >> 16) as u16;
    ((spread ^ pair as u16).wrapping_mul((pair >> 16) as u16 | 1), mix64(negative ^ pair))
}
