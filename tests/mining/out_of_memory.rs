//! Whichever large allocation of a call fails: the call returns [`Error::Memory`], or the right triplets.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fasttriplet::mining::{Band, Input, Metric, Options, Pairs, Pick, Ranks, Rows, Triplets, mine};
use fasttriplet::{Error, Interrupt, Isa};

/// Smaller allocations succeed. Below this is what does not grow with the input: messages, tasks of rayon.
const LARGE: usize = 1024;
/// What crossbeam-epoch, below rayon, allocates now and then to free what threads shared; it does not grow either.
const GARBAGE: usize = 2072;

/// The allocator of the system, but large allocations may fail.
struct Failing;

/// Large allocations that still succeed.
static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Whether the later ones fail, too, or the next one only.
static FOR_GOOD: AtomicBool = AtomicBool::new(false);
/// Allocations that failed.
static FAILED: AtomicUsize = AtomicUsize::new(0);

fn fails(size: usize) -> bool {
    if size < LARGE || size == GARBAGE || LEFT.load(Ordering::SeqCst) == usize::MAX {
        return false;
    }
    let next = |left: usize| match left {
        0 if FOR_GOOD.load(Ordering::SeqCst) => Some(0),
        0 => Some(usize::MAX),
        left => Some(left - 1),
    };
    let fails = LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) == Ok(0);
    FAILED.fetch_add(usize::from(fails), Ordering::SeqCst);
    fails
}

// SAFETY: the system's allocator does the work; a null pointer says that there is no memory.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        if fails(layout.size()) { null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        if fails(layout.size()) { null_mut() } else { unsafe { System.alloc_zeroed(layout) } }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        if fails(size) { null_mut() } else { unsafe { System.realloc(start, layout, size) } }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

const DIM: usize = 8;
const COUNT: usize = 8240;

const OPTIONS: Options = Options { seed: 1, ..Options::DEFAULT };

/// Rows, references (may be none), and how they are mined. Of 8,200 candidates a bit for each is large.
fn cases() -> Vec<(usize, usize, Options)> {
    vec![
        (60, 8200, OPTIONS),
        (300, 0, Options { band: Band::semihard(0.01), negatives_per_pair: 200, ..OPTIONS }),
        (400, 300, Options { band: Band::violating(0.3), metric: Metric::Cosine, ..OPTIONS }),
        (300, 0, Options { pick: Pick::Hardest, negatives_per_pair: 40, ..OPTIONS }),
        (400, 300, Options { pick: Pick::Hardest, pairs: Pairs::Hardest, ..OPTIONS }),
        (300, 0, Options { pick: Pick::Distance, fallback: true, triplets_per_anchor: Some(1), ..OPTIONS }),
        (300, 0, Options { band: Band::ANY, ranks: Ranks { first: 70, end: usize::MAX }, ..OPTIONS }),
        (300, 0, Options { pick: Pick::All, pairs: Pairs::Ordered, max_ap: Some(1.5), ..OPTIONS }),
        (400, 300, Options { pick: Pick::All, band: Band::HARD, pairs: Pairs::Easiest, ..OPTIONS }),
        (300, 0, Options { pick: Pick::All, band: Band::ANY, normalize: false, ..OPTIONS }),
        (300, 0, Options { pick: Pick::All, metric: Metric::Euclidean, negatives_per_pair: 300, ..OPTIONS }),
    ]
}

fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn columns(found: &Triplets) -> ([&[i64]; 3], [&[f64]; 2]) {
    ([&found.anchor, &found.positive, &found.negative], [&found.d_ap, &found.d_an])
}

/// Fails the first large allocation, then in another call the second one, and so on until none is left; of
/// many, not each. Returns how many calls ended in an error.
fn fail_each(input: &Input<'_>, options: &Options, for_good: bool) -> usize {
    let expected = mine(input, options, &Interrupt::new()).unwrap();
    assert!(!expected.anchor.is_empty());
    FOR_GOOD.store(for_good, Ordering::SeqCst);
    let mut errors = 0;
    let mut number = 0;
    loop {
        FAILED.store(0, Ordering::SeqCst);
        LEFT.store(number, Ordering::SeqCst);
        let result = mine(input, options, &Interrupt::new());
        LEFT.store(usize::MAX, Ordering::SeqCst);
        match result {
            Ok(found) => assert_eq!(columns(&found), columns(&expected), "allocation {number}, {options:?}"),
            Err(Error::Memory { bytes, ref advice, .. }) => {
                assert!(bytes > 0 && advice.contains("mine fewer rows"), "{advice}");
                errors += 1;
            }
            Err(error) => panic!("allocation {number}, {options:?}: {error}"),
        }
        if FAILED.load(Ordering::SeqCst) == 0 {
            assert!(number > 20, "only {number} allocations are large");
            return errors;
        }
        number += 1 + number / 20; // the later ones are much alike: lists that grow
    }
}

// One test: the allocator is that of the whole process.
#[test]
fn any_large_allocation_may_fail() {
    let embeddings = numbers(COUNT * DIM);
    let labels: Vec<i64> = (0..COUNT as i64).map(|row| row / 5).collect();
    let ids: Vec<i64> = (0..COUNT as i64).map(|row| 9 * row % COUNT as i64).collect();
    let rows = |first: usize, count: usize| Rows {
        embeddings: &embeddings[first * DIM..][..count * DIM],
        labels: &labels[first..][..count],
        ids: Some(&ids[first..][..count]),
    };
    let fastest = Isa::available().last().unwrap().name();
    for (isa, threads, for_good) in
        [(fastest, 1, false), (fastest, 1, true), (fastest, 2, true), (Isa::PORTABLE.name(), 1, false)]
    {
        // SAFETY: this process has no other thread yet that reads its environment.
        unsafe { std::env::set_var("FASTTRIPLET_ISA", isa) };
        // The calls are made inside of the pool: what starts a thread or hands it work may not fail.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        // A thread allocates 2,304 bytes when it first looks for work, which on a busy machine may be late.
        pool.broadcast(|_| ());
        pool.install(|| {
            for (anchors, references, options) in cases() {
                let references = (references > 0).then(|| rows(40, references));
                let input = Input::new(DIM, rows(0, anchors), references);
                let errors = fail_each(&input, &options, for_good);
                assert!(errors > 10, "only {errors} errors");
                println!("{isa}, {threads} threads, {anchors} rows, {for_good}: {errors} errors");
            }
        });
    }
}
