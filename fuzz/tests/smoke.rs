//! Every target on its corpus, and on a fixed sequence of mutations of it. Needs no fuzzer and no nightly toolchain,
//! so that a target that no longer holds is noticed where the crate is tested.
//!
//! `FUZZ_SECONDS=60` tries mutations for so long instead of a fixed number. An input that fails is written to
//! `fuzz/artifacts/TARGET/`; `make fuzz TARGET=... INPUT=that/file` tries it alone.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fasttriplet_fuzz::TARGETS;

/// Tries the corpus of `target`, and `mutations` of it.
fn smoke(target: &str, mutations: u64) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let corpus = corpus(target);
    for (path, input) in &corpus {
        run(target, *check, input, &path.display().to_string());
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let limit = std::env::var("FUZZ_SECONDS").ok();
    let limit = limit.map(|text| Duration::from_secs_f64(text.parse().expect("FUZZ_SECONDS is a number")));
    let begin = Instant::now();
    let mut tried = 0;
    while limit.map_or(tried < mutations, |limit| begin.elapsed() < limit) {
        let mut random = Random(tried);
        run(target, *check, &mutated(&inputs, &mut random), &format!("mutation {tried}"));
        tried += 1;
    }
    println!(
        "{target}: {} inputs and {tried} mutations, {:.1} s",
        inputs.len(),
        begin.elapsed().as_secs_f64()
    );
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn run(target: &str, check: fn(&[u8]), input: &[u8], name: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("smoke");
        fs::write(&path, input).unwrap();
        eprintln!("{target}: {name} fails; its bytes are in {}", path.display());
        resume_unwind(panic);
    }
}

/// One input, changed in a few places.
fn mutated(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(17).min(bytes.len() - at);
        match random.below(8) {
            0 => drop(bytes.drain(at..at + length)),
            1 => bytes.truncate(at),
            2 => bytes.extend_from_within(at..at + length),
            3 => drop(bytes.splice(at..at, random.bytes(length))),
            4 => {
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len() + 1);
                let piece = other[from..other.len().min(from + length)].to_vec();
                drop(bytes.splice(at..at + length, piece));
            }
            _ if at == bytes.len() => {}
            5 => bytes[at] ^= 1 << random.below(8),
            6 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'\n'][random.below(8)],
            _ => bytes[at] = random.below(256) as u8,
        }
    }
    bytes
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

#[test]
fn header() {
    smoke("header", 20_000);
}

#[test]
fn idx() {
    smoke("idx", 20_000);
}

#[test]
fn jpeg() {
    smoke("jpeg", 30_000);
}

#[test]
fn mining() {
    smoke("mining", 1_500);
}

#[test]
fn png() {
    smoke("png", 20_000);
}

#[test]
fn records() {
    smoke("records", 20_000);
}
