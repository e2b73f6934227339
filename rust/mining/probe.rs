//! The shortcut for random picks: try the negatives in the order of their hash.
//!
//! The pick is the qualifying negative with the smallest hash. So instead of finding all that
//! qualify and then the smallest among them, take the few smallest hashes of all rows and test
//! these, in order: the first that qualifies is the pick. A scan of N hashes costs a few hundredths
//! of N products of 512 numbers, and with half of the rows qualifying (random embeddings) two tests
//! a pair are enough. Where few qualify (trained embeddings) the tests run dry and the pair goes on
//! to the [`screen`](super::screen), which then skips what was tested here.

use super::hash::mix32;
use super::isa::per_isa;
use super::points::Place;

/// Hashes compared at once before looking whether one of them was small.
const CHUNK: usize = 64;

/// A row whose hash is below the threshold.
pub type Hit = (u32, Place);

/// The threshold that about `count` of `of` rows are below, where `count < of`.
pub fn threshold(count: usize, of: usize) -> u32 {
    (((count as u64) << 32) / of as u64) as u32
}

#[inline(always)]
fn below_body(codes: &[u32], key: u32, threshold: u32, hits: &mut Vec<Hit>) {
    let (chunks, rest) = codes.as_chunks::<CHUNK>();
    let mut hashes = [0; CHUNK];
    for (number, chunk) in chunks.iter().enumerate() {
        let mut smallest = u32::MAX;
        for lane in 0..CHUNK {
            hashes[lane] = mix32(chunk[lane] ^ key);
            smallest = smallest.min(hashes[lane]);
        }
        if smallest < threshold {
            for (lane, &hash) in hashes.iter().enumerate() {
                if hash < threshold {
                    hits.push((hash, (number * CHUNK + lane) as Place));
                }
            }
        }
    }
    for (lane, &code) in rest.iter().enumerate() {
        let hash = mix32(code ^ key);
        if hash < threshold {
            hits.push((hash, (chunks.len() * CHUNK + lane) as Place));
        }
    }
}

per_isa! {
    /// Appends the rows whose hash under `key` is below `threshold`, with the hash.
    pub fn below(codes: &[u32], key: u32, threshold: u32, hits: &mut Vec<Hit>) {
        portable => below_body,
        avx2 => below_body,
        avx512 => below_body,
    }
}
