//! `MXNet` `RecordIO`: the `.rec` and `.idx` files that `im2rec` and `InsightFace` write.
//!
//! A [`window`] is the only thing that reads. [`framing`] finds and writes the parts of a record, [`header`] the
//! first bytes of its payload. [`RecordFile`] reads records by offset, [`KeyTable`] finds the offset of a key,
//! [`scan()`] reads all headers in one pass, and [`RecordWriter`] writes.

mod file;
pub mod framing;
pub mod header;
mod idx;
mod keys;
mod problems;
mod reader;
mod rebuild;
mod scan;
mod sniff;
pub mod window;
mod writer;

pub use header::Header;
pub use keys::KeyTable;
pub use reader::{BEFORE_CONTENT, Record, RecordFile, USUAL_LENGTH};
pub use scan::{Bare, Scan, scan};
pub use writer::RecordWriter;
