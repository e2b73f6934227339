//! Exact triplet mining over `MXNet` `.rec` image datasets.
//!
//! The modules follow the data: [`recordio`] reads records, [`image`] decodes them, and [`mining`] picks
//! triplets from their embeddings. No module uses a later one. [`simd`] holds the instruction sets, `mix` the
//! random numbers, and `memory` allocates what is large. All of it is plain Rust. The Python bindings are in `python/`, hold no algorithm, and are
//! compiled only with the feature `python`.

#[cfg(test)]
extern crate self as fasttriplet; // a definition that the fuzz targets have, too, calls it so

#[cfg(not(unix))]
compile_error!("fasttriplet needs Linux or macOS; on Windows, use it in WSL 2, see docs/systems.md");

pub mod error;
pub mod image;
pub mod interrupt;
mod memory;
pub mod mining;
mod mix;
pub mod recordio;
pub mod simd;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, Result};
pub use interrupt::Interrupt;
pub use simd::Isa;
