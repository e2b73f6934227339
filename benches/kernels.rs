//! The inner kernels of the miner on each instruction set of this machine: `make bench-kernels`.
//!
//! 512 columns, 7,200 candidates and one thread: one bag of `InsightFace`'s `triplet` configuration.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fasttriplet::Isa;
use fasttriplet::mining::{Input, Options, Rows, kernels};

const DIM: usize = 512;
const ROWS: usize = 7200;

/// Numbers in `[-1, 1)` that look random.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn exact(c: &mut Criterion) {
    let (x, y) = (numbers(DIM), numbers(DIM));
    let mut group = c.benchmark_group("exact: float64 distance of two rows");
    group.throughput(Throughput::Elements(1));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::from_parameter(isa.name()), |b| {
            b.iter(|| kernels::distance(isa, black_box(&x), black_box(&y)));
        });
    }
}

fn draws(c: &mut Criterion) {
    let hashes_low: Vec<u32> = numbers(ROWS).iter().map(|x| x.to_bits().wrapping_mul(0x9E37_79B9)).collect();
    let mut spreads = vec![0; ROWS];
    let mut scratch = Vec::new();
    let mut group = c.benchmark_group("hash: spreads of all rows for an anchor");
    group.throughput(Throughput::Elements(ROWS as u64));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::from_parameter(isa.name()), |b| {
            b.iter(|| kernels::spreads(isa, black_box(&hashes_low), &mut spreads));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("scan: the 26 smallest draws for a pair");
    group.throughput(Throughput::Elements(ROWS as u64));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::from_parameter(isa.name()), |b| {
            b.iter(|| kernels::scan(isa, black_box(&spreads), 26, &mut scratch));
        });
    }
}

fn screen(c: &mut Criterion) {
    let embeddings = numbers(ROWS * DIM);
    let labels: Vec<i64> = (0..ROWS as i64).collect();
    let anchors = Rows { embeddings: &embeddings, labels: &labels, ids: None };
    let input = Input::new(DIM, anchors, None);
    let mut group = c.benchmark_group("screen: estimated distances of a block of anchors");
    for isa in Isa::available() {
        let bench = |estimate: &mut dyn FnMut(), count| {
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::from_parameter(isa.name()), |b| b.iter(&mut *estimate));
        };
        kernels::estimates(&input, &Options::DEFAULT, isa, bench).expect("rows that can be mined");
    }
}

criterion_group!(benches, exact, draws, screen);
criterion_main!(benches);
