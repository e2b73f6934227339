//! The bodies of the fuzz targets.
//!
//! Each module has a function `check` that takes any bytes and panics if the crate's answer to them is wrong. It is
//! called by libFuzzer (`fuzz_targets/`) and by a plain test over the corpus and seeded mutations
//! (`tests/smoke.rs`). What is right is defined in [`naive`], or is what a second decoder says.

pub mod header;
pub mod idx;
pub mod jpeg;
pub mod mining;
pub mod naive;
pub mod png;
pub mod records;
mod scratch;

/// A target: its name, which is also that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("header", header::check),
    ("idx", idx::check),
    ("jpeg", jpeg::check),
    ("mining", mining::check),
    ("png", png::check),
    ("records", records::check),
];

/// Makes the calling thread the only one of rayon's pool: nothing waits for a thread, and the coverage of an input
/// is the same each time.
pub fn use_one_thread() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("no pool was built before");
}
