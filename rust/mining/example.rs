//! Computes the numbers of the example in the documentation of [`mining`](super).

use super::points::{Place, Sets};
use super::screen::{Precision, Screen};
use super::{Band, Input, Options, Rows, exact, hash, mine, pairs};
use crate::{Interrupt, Isa};

const TEXT: &str = include_str!("example.md");

const IDS: [i64; 7] = [50, 20, 40, 10, 60, 30, 70];
const LABELS: [i64; 7] = [7, 3, 9, 7, 3, 9, 9];
const EMBEDDINGS: [[f32; 2]; 7] =
    [[0.0, 0.0], [2.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [0.0, -2.0]];

const OPTIONS: Options =
    Options { band: Band::semihard(3.0), normalize: false, seed: 10, ..Options::DEFAULT };

/// The example has these words, apart from line breaks.
fn says(words: &str) {
    let text = TEXT.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(words), "the example lacks: {words}");
}

#[test]
fn the_documented_example_is_what_the_miner_does() {
    let embeddings = EMBEDDINGS.as_flattened();
    let rows = Rows { embeddings, labels: &LABELS, ids: Some(&IDS) };
    let input = Input::new(2, rows, None);
    let interrupt = Interrupt::new();
    let sets = Sets::new(&input, &OPTIONS, Isa::PORTABLE, &interrupt).unwrap();
    let points = &sets.anchors;

    for place in 0..7 {
        let (row, rank) = (points.rows[place] as usize, points.ranks[place]);
        let [x, y] = EMBEDDINGS[row];
        says(&format!("| {row} | {} | {} | ({x}, {y}) | {place} | {rank} |", IDS[row], LABELS[row]));
    }

    let anchor = points.rows.iter().position(|&row| row == 0).unwrap() as Place;
    let identity = sets.own_run(anchor);
    says(&format!("The anchor has the place {anchor}, its identity the places {identity:?}."));
    let mut stats = super::Stats::default();
    let pairs = pairs::pairs_of(anchor, &sets, &OPTIONS, Isa::PORTABLE, &mut stats).unwrap();
    let [pair] = pairs.as_slice() else { panic!("one pair") };
    says(&format!("the positive has the rank {} and `d_ap` is {}", pair.positive, pair.d_ap));
    let (above, below) = OPTIONS.band.interval(pair.d_ap);
    says(&format!("between {above} and {below}"));

    let (xor, factor) = pair.key.map();
    says(&format!("`xor` {xor} and `factor` {factor}"));
    let mut spreads = [0; 7];
    hash::spreads(Isa::PORTABLE, points.hashes[anchor as usize], &points.hashes_low, &mut spreads);
    let mut negatives: Vec<Place> = (0..7).filter(|place| !identity.contains(place)).collect();
    negatives.sort_by_key(|&place| pair.key.draw(points.hashes[place as usize]));
    let mut picked = None;
    for place in negatives {
        let (hash, spread) = (points.hashes[place as usize], spreads[place as usize]);
        let draw = pair.key.map_spread(spread);
        let d_an = exact::distance(Isa::PORTABLE, points.values(anchor), points.values(place));
        let qualifies = above < d_an && d_an < below;
        let word = if qualifies { "yes" } else { "no" };
        says(&format!("| {place} | {hash:016x} | {spread} | {draw} | {d_an} | {word} |"));
        if qualifies && picked.is_none() {
            picked = Some(points.ids[place as usize]);
        }
    }
    let picked = picked.unwrap();
    says(&format!("the negative with the id {picked}"));

    let last = points.rows.iter().position(|&row| row == 6).unwrap() as Place;
    let screen = Screen::new(&sets, Precision::Coarse, Isa::PORTABLE, &interrupt).unwrap();
    says(&format!("`{:.4?}`", screen.window(above, below)));
    for isa in Isa::available() {
        let sets = Sets::new(&input, &OPTIONS, isa, &interrupt).unwrap();
        let screen = Screen::new(&sets, Precision::Coarse, isa, &interrupt).unwrap();
        let (window, bounds) = (screen.window(above, below), screen.bounds(anchor, last));
        if isa.name() == "avx2" {
            says(&format!("`{bounds:.4?}`"));
        }
        assert!(window.may_hold(bounds));
    }

    let triplets = mine(&input, &OPTIONS, &interrupt).unwrap();
    let of_pair =
        (0..triplets.anchor.len()).find(|&i| (triplets.anchor[i], triplets.positive[i]) == (50, 10));
    let i = of_pair.expect("a triplet of the pair");
    assert_eq!(triplets.negative[i], picked);
    let ranks = [50, 10, picked].map(|id| points.ranks[points.ids.iter().position(|&x| x == id).unwrap()]);
    says(&format!("the ranks ({}, {}, {})", ranks[0], ranks[1], ranks[2]));
    says(&format!("(50, 10, {picked}) with `d_ap` {} and `d_an` {}", triplets.d_ap[i], triplets.d_an[i]));
}
