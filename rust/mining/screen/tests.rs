use proptest::prelude::*;

use super::super::{Band, Input, Options, Pairs, Pick, Rows, exact};
use super::*;

const OPTIONS: Options =
    Options { band: Band::ANY, pick: Pick::All, pairs: Pairs::Ordered, normalize: false, ..Options::DEFAULT };

fn paths() -> impl Iterator<Item = (Isa, Precision)> {
    Isa::available().into_iter().flat_map(|isa| [(isa, Precision::Coarse), (isa, Precision::Fine)])
}

fn sets(embeddings: &[f32], dim: usize, options: &Options, isa: Isa) -> Sets {
    let labels: Vec<i64> = (0..(embeddings.len() / dim) as i64).collect();
    let anchors = Rows { embeddings, labels: &labels, ids: None };
    let input = Input::new(dim, anchors, None);
    Sets::new(&input, options, isa, &Interrupt::new()).unwrap()
}

/// Rows of very different lengths, with near-duplicates, whose squares leave float32's range.
fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
    let dim = prop_oneof![1_usize..70, Just(511), Just(2049)];
    (dim, 1_usize..45, any::<u64>(), 0_u8..4).prop_map(|(dim, count, seed, kind)| {
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let base: Vec<f32> = (0..dim).map(|_| random()).collect();
        let mut values = Vec::with_capacity(count * dim);
        for _ in 0..count {
            let power = random();
            let length = match kind {
                0 => 1.0,
                1 => 10_f32.powf(38.0 * power),
                2 => 10_f32.powf(-45.0 * power.abs()),
                _ => 10_f32.powf(3.0 * power),
            };
            let near = random() > 0.5;
            values.extend(base.iter().map(|&x| {
                let value = if near { x * (1.0 + 2e-7 * random()) } else { random() };
                (value * length).clamp(f32::MIN, f32::MAX)
            }));
        }
        (dim, values)
    })
}

proptest! {
    /// The narrowest window around each exact distance lets its row through, on every path.
    #[test]
    fn never_drops_what_is_inside((dim, embeddings) in rows()) {
        let count = embeddings.len() / dim;
        let interrupt = Interrupt::new();
        for (isa, precision) in paths() {
            let sets = sets(&embeddings, dim, &OPTIONS, isa);
            let points = &sets.anchors;
            let screen = Screen::new(&sets, precision, isa, &interrupt).unwrap();
            let all: Vec<Place> = (0..count as Place).collect();
            let window = |anchor, target| {
                let d = exact::distance(isa, points.values(anchor), points.values(target));
                screen.window(d.next_down(), d.next_up())
            };
            for anchors in all.chunks(BLOCK) {
                let mut estimates = Vec::new();
                let mut block = screen.block(anchors, 0..0, &mut estimates).unwrap();
                // By anchor and target.
                let windows: Vec<Vec<Window>> =
                    anchors.iter().map(|&anchor| all.iter().map(|&target| window(anchor, target)).collect()).collect();
                let mut seen = vec![vec![false; count]; anchors.len()];
                for stretch in screen.stretches() {
                    block.measure(stretch, &interrupt).unwrap();
                    for (i, windows) in windows.iter().enumerate() {
                        let from_anchor = block.of_anchor(i);
                        for (&target, window) in all.iter().zip(windows) {
                            let mut marks = Vec::new();
                            from_anchor.mark(*window, &(0..0), &mut marks).unwrap();
                            from_anchor.visit(&marks, |place| {
                                seen[i][target as usize] |= place == target;
                                Ok(())
                            }).unwrap();
                            // All but its own.
                            let (own, all) = (target / 2..target + 1, marks.clone());
                            from_anchor.mark(*window, &own, &mut marks).unwrap();
                            let (mut rest, mut others) = (Vec::new(), Vec::new());
                            from_anchor.visit(&marks, |place| { rest.push(place); Ok(()) }).unwrap();
                            from_anchor.visit(&all, |place| { others.push(place); Ok(()) }).unwrap();
                            others.retain(|place| !own.contains(place));
                            prop_assert_eq!(rest, others);
                        }
                    }
                }
                for ((&anchor, windows), seen) in anchors.iter().zip(&windows).zip(&seen) {
                    for ((&target, window), seen) in all.iter().zip(windows).zip(seen) {
                        prop_assert!(seen, "{} dropped row {target}", isa.name());
                        prop_assert!(window.may_hold(screen.bounds(anchor, target)), "{}", isa.name());
                    }
                }
            }
        }
    }
}

proptest! {
    /// Both rows of each product find each other, once, whatever part of the rows are anchors.
    #[test]
    fn the_sieve_keeps_what_is_inside((dim, embeddings) in rows(), cut in 0_usize..40, by in 1_usize..40) {
        let (count, interrupt) = (embeddings.len() / dim, Interrupt::new());
        let first = cut % count;
        for (isa, precision) in paths() {
            let sets = sets(&embeddings, dim, &OPTIONS, isa);
            let screen = Screen::new(&sets, precision, isa, &interrupt).unwrap();
            let distance = |x, y| exact::distance(isa, sets.anchors.values(x), sets.anchors.values(y));
            let anchors = first as Place..(count - cut / 7 % (count - first)) as Place;
            // Without `above`: up to the distance of a row. Every fifth anchor looks for nothing.
            let of_anchor = |anchor: Place| {
                let target = (anchor as usize + by) % count;
                (anchor % 5 != 4).then(|| distance(anchor, target as Place).next_up())
            };
            let windows: Vec<_> = anchors.clone().map(|anchor| {
                of_anchor(anchor).map_or(Window::EMPTY, |below| screen.window(f64::NEG_INFINITY, below))
            }).collect();
            // Identities of two rows, or parts of so many that whole panels are no negatives.
            let of_own = if by % 2 == 0 { 2 } else { 32 };
            let own = |anchor: Place| anchor / of_own * of_own..(anchor / of_own + 1) * of_own;
            let all = screen.sieve(anchors.clone(), &windows, count, own, &interrupt).unwrap();
            let few = screen.sieve(anchors.clone(), &windows, 2, own, &interrupt).unwrap();
            for anchor in anchors {
                let near = all.of(anchor).unwrap();
                prop_assert!(near.is_sorted_by(|a, b| a < b), "{} {near:?}", isa.name());
                for candidate in 0..count as Place {
                    let found = near.contains(&candidate);
                    let inside = of_anchor(anchor).is_some_and(|below| distance(anchor, candidate) < below);
                    prop_assert!(!found || !own(anchor).contains(&candidate));
                    prop_assert!(found || !inside || own(anchor).contains(&candidate), "{} {anchor} {candidate}", isa.name());
                }
                prop_assert_eq!(few.of(anchor), (near.len() <= 2).then_some(near));
            }
        }
    }
}

proptest! {
    /// What is left of a window holds the nearest rows that are in it.
    #[test]
    fn the_nearest_stay_in_the_window((dim, embeddings) in rows(), most in 1_usize..3, from in 0_u32..45) {
        let (count, interrupt) = ((embeddings.len() / dim) as Place, Interrupt::new());
        for (isa, precision) in paths() {
            let sets = sets(&embeddings, dim, &OPTIONS, isa);
            let screen = Screen::new(&sets, precision, isa, &interrupt).unwrap();
            let (mut estimates, mut buffers) = (Vec::new(), Nearest::default());
            for anchor in 0..count {
                let distance = |place| exact::distance(isa, sets.anchors.values(anchor), sets.anchors.values(place));
                let above = if from < count { distance(from) } else { f64::NEG_INFINITY };
                let identity = anchor..anchor + 1;
                let mut block = screen.block(&[anchor], 0..0, &mut estimates).unwrap();
                block.measure(screen.stretches().next().unwrap(), &interrupt).unwrap();
                let window = screen.window(above, f64::INFINITY);
                let near = block.of_anchor(0).nearest(window, most, &identity, &mut buffers).unwrap();
                let mut inside: Vec<f64> =
                    (0..count).filter(|place| !identity.contains(place)).map(distance).filter(|&d| d > above).collect();
                inside.sort_by(f64::total_cmp);
                for d in inside.into_iter().take(most) {
                    let there = screen.window(d.next_down(), d.next_up());
                    prop_assert!(there.above < near.below && near.above < there.below, "{} {d}", isa.name());
                }
            }
        }
    }
}

/// The margins are those that the bound is proven with.
#[test]
#[allow(clippy::float_cmp)] // powers of two
fn the_margins_of_the_proof() {
    let small = 2_f64.powi(-20);
    assert_eq!([RAISE - 1.0, 1.0 - LOWER, ROUNDED], [small; 3]);
    assert_eq!(UNDERFLOW, 2_f64.powi(-100));
    for (squared, factor) in
        [(0.0, 1.0), (0.25, 1.0), (0.99, 1.0), (1.0, 0.5), (3.9, 0.5), (4.0, 0.25), (0.24, 2.0)]
    {
        assert_eq!(power_of_two_below(squared), factor, "{squared}");
    }
    assert_eq!(power_of_two_below(1e-300), 2_f64.powi(126));
    assert_eq!(power_of_two_below(1e300), 2_f64.powi(-126));
    let around = |edge: f64, fraction: f64| (moved(edge, -fraction) < edge, edge < moved(edge, fraction));
    for edge in [0.0, 1e-310, 0.3, 7.0, -0.3] {
        assert_eq!(around(edge, small), (true, true), "{edge}");
    }
    assert!((moved(4.0, small) - 4.0 - 4.0 * small).abs() < 1e-15);
    assert!((moved(-4.0, small) + 4.0 - 4.0 * small).abs() < 1e-15);
    assert_eq!(moved(f64::INFINITY, small), f64::INFINITY);
    assert_eq!(moved(f64::NEG_INFINITY, -small), f64::NEG_INFINITY);
}

fn unit_rows(count: usize, dim: usize) -> Vec<f32> {
    let number = |at: u64| (crate::mix::mix64(at) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..(count * dim) as u64).map(number).collect()
}

proptest! {
    /// Edges in float32 are outside of those of the bound, but not by more than the rounding that they cover.
    #[test]
    fn edges_are_those_of_the_bound(
        above in prop_oneof![Just(f64::NEG_INFINITY), -0.1_f64..4.0],
        width in 0.0_f64..4.0,
        anchor in (0.0_f64..1.0, prop_oneof![Just(0.0), 0.0_f64..0.1]),
        panel in (0.0_f64..1.0, prop_oneof![Just(0.0), 0.0_f64..0.1]),
        error in prop_oneof![Just(1e-6), 1e-6_f64..1e-2],
    ) {
        let below = if above < 0.0 { width } else { above + width };
        let (x, r, y, t) = (anchor.0, anchor.1, panel.0, panel.1);
        let terms = BoundTerms { squared_norm: x, residual: r };
        let panel = Panel { squared_norms: [y as f32; COLUMNS], squared_norm: y as f32, residual: t as f32 };
        let edges = Edges::new(Window { above, below }, above, terms, error);
        let (low, high) = edges.of_panel(&panel);
        let slack = error * (x + y);
        let least = (above.max(0.0).sqrt() - r - t).max(0.0).powi(2) - slack - x;
        let most = (below.sqrt() + r + t).powi(2) + slack - x;
        prop_assert!(f64::from(low) <= least + 3e-7 && f64::from(low) > least - 3e-5, "{low} {least}");
        prop_assert!(f64::from(high) >= most - 3e-7 && f64::from(high) < most + 6e-5, "{high} {most}");
        let certain = edges.certain_of_panel(&panel);
        if above == f64::NEG_INFINITY {
            prop_assert!(certain == f32::NEG_INFINITY, "{certain}");
        } else {
            let least = (above.max(0.0).sqrt() + r + t).powi(2) + slack - x;
            prop_assert!(f64::from(certain) >= least - 3e-7 && f64::from(certain) < least + 6e-5, "{certain} {least}");
        }
    }
}

/// Bounds hold, and are as near as whole numbers of their bits can be.
#[test]
fn bounds_of_single_products_are_near() {
    let (count, dim) = (40, 64);
    for (isa, precision) in paths() {
        let embeddings = unit_rows(count, dim);
        let sets = sets(&embeddings, dim, &Options { normalize: true, ..OPTIONS }, isa);
        let screen = Screen::new(&sets, precision, isa, &Interrupt::new()).unwrap();
        let near = if precision == Precision::Fine || isa == Isa::PORTABLE { 0.001 } else { 0.1 };
        let mut estimates = Vec::new();
        let anchors: Vec<Place> = (0..BLOCK as Place).collect();
        let mut block = screen.block(&anchors, 0..0, &mut estimates).unwrap();
        block.measure(screen.stretches().next().unwrap(), &Interrupt::new()).unwrap();
        for anchor in anchors {
            for candidate in 0..count as Place {
                let row = |place| sets.anchors.values(place);
                // Rows are halved, so that they are shorter than 1.
                let d = exact::distance(isa, row(anchor), row(candidate)) * screen.squared_scale;
                let of_block = block.of_anchor(anchor as usize).bounds(candidate);
                for Bounds { low, high } in [screen.bounds(anchor, candidate), of_block] {
                    assert!(low <= d && d <= high, "{} {low} {d} {high}", isa.name());
                    assert!(high - low < near, "{} {precision:?} {low} {d} {high}", isa.name());
                }
            }
        }
    }
}

/// As the next, with the windows of both rows of each product.
#[test]
fn the_sieve_drops_what_is_far_outside() {
    let (count, dim) = (200, 64);
    let interrupt = Interrupt::new();
    for (isa, precision) in paths() {
        let embeddings = unit_rows(count, dim);
        let sets = sets(&embeddings, dim, &Options { normalize: true, ..OPTIONS }, isa);
        let screen = Screen::new(&sets, precision, isa, &interrupt).unwrap();
        let portable = isa == Isa::PORTABLE;
        let stray = if precision == Precision::Fine || portable { 0.002 } else { 0.15 };
        // Different rows have different windows, and every third has none.
        let edges = |anchor: Place| {
            let above = 1.7 + f64::from(anchor % 7) * 0.1;
            (!anchor.is_multiple_of(3)).then_some((above, above + 0.1))
        };
        let all = 0..count as Place;
        let window =
            |anchor| edges(anchor).map_or(Window::EMPTY, |(above, below)| screen.window(above, below));
        let windows: Vec<Window> = all.clone().map(window).collect();
        let own = |anchor: Place| anchor..anchor + 1;
        let found = screen.sieve(all.clone(), &windows, count, own, &interrupt).unwrap();
        let mut through = 0;
        for anchor in all.clone() {
            let near = found.of(anchor).unwrap();
            through += near.len();
            for &candidate in near {
                let d = exact::distance(isa, sets.anchors.values(anchor), sets.anchors.values(candidate));
                let (above, below) = edges(anchor).expect("a window");
                assert!((above - stray..below + stray).contains(&d), "{} {precision:?} {d}", isa.name());
            }
        }
        assert!(through > 1000, "{through}");
    }
}

/// The bound is worth something: of unit rows it lets through only those near the window.
#[test]
fn drops_what_is_far_outside() {
    let (count, dim) = (200, 64);
    let mut state = 1_u64;
    let embeddings: Vec<f32> = (0..count * dim)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let interrupt = Interrupt::new();
    for (isa, precision) in paths() {
        let sets = sets(&embeddings, dim, &Options { normalize: true, ..OPTIONS }, isa);
        let points = &sets.anchors;
        let screen = Screen::new(&sets, precision, isa, &interrupt).unwrap();
        let window = screen.window(1.9, 2.1);
        let mut estimates = Vec::new();
        let mut block = screen.block(&[0], 0..0, &mut estimates).unwrap();
        let portable = isa == Isa::PORTABLE;
        let stray = if precision == Precision::Fine || portable { 0.002 } else { 0.15 };
        let (mut through, mut strays) = (0, 0);
        for stretch in screen.stretches() {
            block.measure(stretch, &interrupt).unwrap();
            let from_first = block.of_anchor(0);
            let mut marks = Vec::new();
            from_first.mark(window, &(0..0), &mut marks).unwrap();
            let check = |place| {
                let d = exact::distance(isa, points.values(0), points.values(place));
                through += 1;
                strays += usize::from(!(1.9 - stray..2.1 + stray).contains(&d));
                Ok(())
            };
            from_first.visit(&marks, check).unwrap();
        }
        assert!(
            through > 10 && strays == 0,
            "{} {precision:?}: {through} through, {strays} of them astray",
            isa.name()
        );
    }
}
