//! What the miner finds, beside what the definition says: triplets, distances and counts, on every instruction set,
//! at once and in blocks.

use super::mine::{rounds, run};
use super::points::Sets;
use super::{
    Band, Input, Limit, Metric, Options, Pairs, Pick, Ranks, Rows, Side, Stats, Triplets, finish, merge,
};
use crate::{Interrupt, Isa};

// The definition is that of the fuzz target, too.
#[path = "../../fuzz/src/naive/mining.rs"]
mod naive;

use naive::{Mined, Set, of_anchors};

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::mix::mix64(self.0)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Between -1 and 1.
    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// How the rows of a set lie.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// On whole numbers from -2 to 2: most distances tie.
    Grid,
    Anywhere,
    /// Each identity near a point of its own.
    Clusters,
    /// All of them near one point.
    Collapsed,
}

const LAYOUTS: [Layout; 4] = [Layout::Grid, Layout::Anywhere, Layout::Clusters, Layout::Collapsed];

impl Set {
    /// Rows of identities that are the same in each set. Ids ascend in another order than rows, from `first` on.
    fn new(
        random: &mut Random,
        (count, dim): (usize, usize),
        identities: usize,
        layout: Layout,
        first: usize,
    ) -> Self {
        let labels: Vec<i64> = (0..count).map(|_| random.below(identities) as i64 * 3 - 7).collect();
        let mut embeddings = Vec::with_capacity(count * dim);
        for &label in &labels {
            let mut center = Random(label as u64);
            for _ in 0..dim {
                let (at, x) = (center.uniform(), random.uniform());
                embeddings.push(match layout {
                    Layout::Grid => (x * 2.0).round(),
                    Layout::Anywhere => x,
                    Layout::Clusters => at + 0.3 * x,
                    Layout::Collapsed => 1.0 + 1e-3 * x,
                });
            }
        }
        // Multiplied by an odd number, different numbers of 16 bits stay different.
        let ids = (first..first + count).map(|row| i64::from((row as u16).wrapping_mul(40_503)) - 20_000);
        Self { embeddings, labels, ids: ids.collect() }
    }
}

fn options(random: &mut Random) -> Options {
    let number = |random: &mut Random| random.choose(&[0.0, 0.05, 0.3, 1.0, 2.0, 5.0]);
    let some = |random: &mut Random| random.once_in(4).then(|| 1 + random.below(5));
    let band = match random.below(8) {
        0 => Band::violating(number(random)),
        1 => Band::easy(number(random)),
        2 => Band::HARD,
        3 => Band::ANY,
        4 => {
            let limit = |random: &mut Random| Limit {
                side: random.choose(&[Side::Above, Side::Below]),
                inclusive: random.once_in(2),
                slope: random.choose(&[0.0, 0.5, 1.0, -1.0, 1.25]),
                offset: number(random),
            };
            Band::of(&[limit(random), limit(random)]).unwrap()
        }
        _ => Band::semihard(number(random)),
    };
    let first = random.below(6);
    Options {
        band,
        ranks: match random.below(6) {
            0 => Ranks { first, end: usize::MAX },
            1 => Ranks { first, end: first + 1 + random.below(20) },
            _ => Ranks::ALL,
        },
        pick: random.choose(&[Pick::Random, Pick::Random, Pick::Hardest, Pick::Distance, Pick::All]),
        negatives_per_pair: random.choose(&[1, 1, 1, 2, 3, 10, 70, usize::MAX]),
        fallback: random.once_in(4),
        pairs: random.choose(&[Pairs::Unordered, Pairs::Ordered, Pairs::Hardest, Pairs::Easiest]),
        positives_per_anchor: some(random),
        triplets_per_anchor: some(random),
        metric: random.choose(&[Metric::SquaredEuclidean, Metric::Euclidean, Metric::Cosine]),
        max_ap: random.once_in(4).then(|| random.choose(&[0.0, 0.5, 1.0, 4.0])),
        normalize: random.once_in(2),
        seed: random.next(),
    }
}

/// What is mined.
struct Case {
    dim: usize,
    anchors: Set,
    references: Option<Set>,
    ids_given: bool,
    options: Options,
}

impl Case {
    /// Of up to `most` rows.
    fn new(random: &mut Random, most: usize) -> Self {
        let (count, dim) = (random.below(most + 1), random.choose(&[1, 2, 5, 8, 9, 16, 33]));
        let layout = random.choose(&LAYOUTS);
        let identities = 1 + random.below(count.max(1));
        let anchors = Set::new(random, (count, dim), identities, layout, 0);
        let references = random.once_in(3).then(|| {
            let size = (random.below(most + 1), dim);
            let mut references = Set::new(random, size, identities, layout, count / 2);
            // A reference with the id of an anchor is that anchor.
            for (id, label) in references.ids.iter().zip(&mut references.labels) {
                if let Some(row) = anchors.ids.iter().position(|anchor| anchor == id) {
                    *label = anchors.labels[row];
                }
            }
            references
        });
        Self { dim, anchors, references, ids_given: random.once_in(2), options: options(random) }
    }

    fn input(&self) -> Input<'_> {
        let references = self.references.as_ref().map(|set| set.rows(self.ids_given));
        Input::new(self.dim, self.anchors.rows(self.ids_given), references)
    }

    /// On every instruction set, what the definition says. Returns the counts of each.
    fn check(&self, name: &str) -> Vec<(Isa, Stats)> {
        let expected = naive::mine(&self.input(), &self.options);
        let scatter = self.scatter();
        let mut stats = Vec::new();
        for isa in Isa::available() {
            let found = run(isa, &self.input(), &self.options, false, &Interrupt::new()).unwrap();
            assert!(Mined::of(&found) == expected, "{name}, {}: {:?}", isa.name(), self.options);
            assert_eq!(found.scatter.map(f64::to_bits), scatter.map(f64::to_bits), "{name}");
            stats.push((isa, found.stats));
        }
        stats
    }

    /// The median of `2 |x - y|^2 / (|x|^2 + |y|^2)` of some candidates, each with one of another identity.
    fn scatter(&self) -> Option<f64> {
        let Self { references, options, dim, .. } = self;
        let candidates = references.as_ref().unwrap_or(&self.anchors);
        let rows = naive::rows(&candidates.rows(self.ids_given), *dim, options.normalize);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&row| (rows[row].label, rows[row].id));
        let terms = order.iter().step_by(rows.len().div_ceil(1024).max(1)).filter_map(|&row| {
            let others: Vec<usize> =
                order.iter().copied().filter(|&other| rows[other].label != rows[row].label).collect();
            let chosen = naive::row_hash(options.seed, rows[row].id).checked_rem(others.len() as u64)?;
            let other = others[chosen as usize];
            let squared = naive::distance(&rows[row], &rows[other], Metric::SquaredEuclidean);
            let norm = |row: usize| naive::sum(rows[row].values.iter().map(|&x| f64::from(x) * f64::from(x)));
            Some(if squared > 0.0 { 2.0 * squared / (norm(row) + norm(other)) } else { 0.0 })
        });
        let mut terms: Vec<f64> = terms.collect();
        terms.sort_by(f64::total_cmp);
        terms.get(terms.len() / 2).copied()
    }

    /// The same by blocks of negatives and groups of anchors, which are merged in some order. With `split`, the
    /// identities are parted there, and negatives of the other part are looked for in one call for both.
    fn check_blocks(&self, random: &mut Random, split: Option<i64>, name: &str) {
        let candidates = self.references.as_ref().unwrap_or(&self.anchors);
        let first_part = |label: i64| split.is_none_or(|split| label < split);
        let numbers: Vec<usize> = candidates.labels.iter().map(|_| random.below(3)).collect();
        let groups: Vec<bool> = match split {
            None => self.anchors.labels.iter().map(|_| random.once_in(2)).collect(),
            Some(_) => self.anchors.labels.iter().map(|&label| first_part(label)).collect(),
        };
        let across = split.map(|_| self.collected(None, None, split));
        let mut all = Mined::default();
        for group in [true, false] {
            let only: Vec<bool> = groups.iter().map(|&of| of == group).collect();
            let of_group = |row: usize| split.is_none() || first_part(candidates.labels[row]) == group;
            let block = |number| candidates.part(self.dim, |row| numbers[row] == number && of_group(row));
            let mut parts: Vec<Triplets> =
                (0..3).map(|number| self.collected(Some(&only), Some(&block(number)), None)).collect();
            if let Some(across) = &across {
                let ids = self.anchors.ids.iter().zip(&only).filter(|(_, only)| **only).map(|(id, _)| *id);
                parts.push(of_anchors(across, &ids.collect::<Vec<_>>(), parts[0].stats));
            }
            while parts.len() > 1 {
                let first = parts.swap_remove(random.below(parts.len()));
                let second = parts.swap_remove(random.below(parts.len()));
                let merged = merge(&[first, second], &self.options, self.dim, &Interrupt::new());
                let merged = merged.expect("parts of the same anchors");
                self.check_size(&merged, name);
                parts.push(merged);
            }
            let found = finish(&parts[0], &self.options, self.dim, &Interrupt::new()).unwrap();
            let mut found = Mined::of(&found);
            all.triplets.append(&mut found.triplets);
            all.pairs += found.pairs;
            all.over_max_ap += found.over_max_ap;
            all.without_negative += found.without_negative;
        }
        all.triplets.sort_unstable();
        assert!(all == naive::mine(&self.input(), &self.options), "{name} in blocks: {:?}", self.options);
    }

    fn collected(&self, only: Option<&[bool]>, block: Option<&Set>, between: Option<i64>) -> Triplets {
        let input = Input { only, block: block.map(|set| set.rows(true)), between, ..self.input() };
        let part = super::collect(&input, &self.options, &Interrupt::new()).expect("valid input");
        self.check_size(&part, "a block");
        part
    }

    /// A part has no more of a pair than may be chosen, and the farthest for those without.
    fn check_size(&self, part: &Triplets, name: &str) {
        let Options { ranks: Ranks { first, end }, pick, negatives_per_pair: each, .. } = self.options;
        let most = match pick {
            Pick::All => end,
            _ if (first, end) == (0, usize::MAX) => each,
            Pick::Hardest => end.min(first.saturating_add(each)),
            Pick::Random | Pick::Distance if end == usize::MAX => first.saturating_add(each),
            Pick::Random | Pick::Distance => end,
        };
        let most = most.saturating_add(usize::from(self.options.fallback));
        let pairs: Vec<(i64, i64)> = part.anchor.iter().copied().zip(part.positive.iter().copied()).collect();
        let largest = pairs.chunk_by(|x, y| x == y).map(<[_]>::len).max().unwrap_or_default();
        assert!(largest <= most, "{name}: {largest} of a pair, {:?}", self.options);
    }
}

#[test]
fn any_rows_and_options() {
    for seed in 0..300 {
        let most = [6, 40, 40, 150][seed as usize % 4];
        Case::new(&mut Random(seed), most).check(&format!("case {seed}"));
    }
}

#[test]
fn in_blocks() {
    for seed in 0..150 {
        let random = &mut Random(1_000_000 + seed);
        let mut case = Case::new(random, 60);
        case.ids_given = true;
        let split = random.once_in(2).then(|| random.below(40) as i64);
        case.check_blocks(random, split, &format!("case {seed}"));
    }
}

/// Rows that lie `layout`, `of_identity` of each identity or a few more, and options of which most are the usual ones.
fn situation(count: usize, dim: usize, of_identity: usize, layout: Layout, options: Options) -> Case {
    let anchors = Set::new(&mut Random(5), (count, dim), count / of_identity, layout, 0);
    Case { dim, anchors, references: None, ids_given: true, options }
}

/// The same, with a few anchors and many references.
fn with_references(mut case: Case, anchors: usize, of_identity: usize) -> Case {
    let count = case.anchors.labels.len();
    let layout = Layout::Anywhere;
    let some = Set::new(&mut Random(6), (anchors, case.dim), count / of_identity, layout, count);
    case.references = Some(std::mem::replace(&mut case.anchors, some));
    case
}

/// Pairs that are screened and exact distances, at most: as counted when this was written, and a tenth more. Without
/// whole numbers, the screen is closer and fewer distances are needed.
struct Most {
    screened: u64,
    distances: u64,
    distances_portable: u64,
}

const fn most(screened: u64, distances: u64, distances_portable: u64) -> Most {
    Most { screened, distances, distances_portable }
}

/// The answer alone would be right without the steps that save work: counts of the work in situations that each of
/// them was made for.
#[test]
fn the_work_is_what_the_steps_leave_of_it() {
    let options = |pick, margin| Options { pick, band: Band::semihard(margin), ..Options::DEFAULT };
    let random = |margin| options(Pick::Random, margin);
    let anywhere = |count, dim, options| situation(count, dim, 4, Layout::Anywhere, options);
    // Of identities of four, in two stretches of candidates.
    let many = |options| with_references(anywhere(11_000, 8, options), 40, 4);
    let hard = Options { band: Band::HARD, ..random(0.0) };
    let farthest = Options {
        band: Band::of(&[Limit { offset: -1.0, ..hard.band.limits()[0] }]).unwrap(),
        fallback: true,
        ..hard
    };
    let situations = [
        ("half of the rows qualify", anywhere(600, 16, random(0.5)), most(110, 1_680, 1_350)),
        ("few qualify", anywhere(1500, 32, random(0.01)), most(3_200, 40_700, 3_220)),
        ("the nearer ones", anywhere(300, 16, hard), most(57, 730, 690)),
        ("the farthest, for those without", anywhere(300, 16, farthest), most(528, 780, 600)),
        ("the nearest one", anywhere(1500, 32, options(Pick::Hardest, 0.3)), most(3_290, 7_990, 3_450)),
        ("few of many qualify", many(random(0.02)), most(150, 1_000, 194)),
        ("some of many qualify", many(random(0.3)), most(19, 239, 186)),
        ("the nearest of many", many(options(Pick::Hardest, 0.3)), most(184, 706, 215)),
        ("one of few, by distance", many(options(Pick::Distance, 0.02)), most(184, 1_880, 1_860)),
        ("one of some, by distance", many(options(Pick::Distance, 0.3)), most(184, 1_370, 1_370)),
        ("all of few", many(options(Pick::All, 0.02)), most(184, 15_950, 15_700)),
        ("all of some", many(options(Pick::All, 0.3)), most(184, 165_500, 165_400)),
    ];
    for (name, case, most) in situations {
        for (isa, stats) in case.check(name) {
            let distances = if isa == Isa::PORTABLE { most.distances_portable } else { most.distances };
            let few = stats.pairs_screened <= most.screened && stats.exact_distances <= distances;
            assert!(few, "{name}, {}: {stats:?}", isa.name());
        }
    }
}

#[test]
fn rounds_are_of_so_many_pairs() {
    let labels: Vec<i64> = (0..9_000).map(|row| row / 3_000).collect();
    let embeddings = vec![0.5; labels.len()];
    let only: Vec<bool> = (0..labels.len()).map(|row| row % 2 == 0).collect();
    let rows = Rows { embeddings: &embeddings, labels: &labels, ids: None };
    for (pairs, only, of_anchor) in [
        (Pairs::Ordered, None, 3000),
        (Pairs::Ordered, Some(only.as_slice()), 1500),
        (Pairs::Unordered, None, 1500),
        (Pairs::Hardest, None, 1),
    ] {
        for references in [None, Some(rows)] {
            let input = Input { only, ..Input::new(1, rows, references) };
            let sets = Sets::new(&input, &Options::DEFAULT, Isa::PORTABLE, &Interrupt::new()).unwrap();
            let found = rounds(&sets, pairs).unwrap();
            // With references there is no other way round.
            let of_anchor = if pairs == Pairs::Unordered && references.is_some() { 3000 } else { of_anchor };
            let anchors = ((1 << 20) / of_anchor + 1).min(9_000);
            let mut next = 0;
            for round in &found {
                assert_eq!(round.start, next);
                next = round.end;
                // Every second row may be none.
                let full = round.len().abs_diff(anchors) <= 2;
                assert!(full || next == 9_000 && round.len() < anchors, "{pairs:?} {round:?} {anchors}");
            }
            assert_eq!(next, 9_000);
        }
    }
    let none = Rows { embeddings: &[], labels: &[], ids: None };
    let sets = Sets::new(&Input::new(1, none, None), &Options::DEFAULT, Isa::PORTABLE, &Interrupt::new());
    assert!(rounds(&sets.unwrap(), Pairs::Ordered).unwrap().is_empty());
}
