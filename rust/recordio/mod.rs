//! `MXNet` `RecordIO`: the `.rec` and `.idx` files that `im2rec` and `InsightFace` write.
//!
//! [`framing`] reads and writes the parts of a record, [`header`] the first bytes of its payload; both work
//! on plain byte slices. [`RecordFile`] reads records by offset, [`KeyTable`] finds the offset of a key,
//! [`scan()`] reads all headers in one pass, and [`RecordWriter`] writes.

pub mod framing;
pub mod header;
mod idx;
mod keys;
mod problems;
mod reader;
mod rebuild;
mod scan;
mod sniff;
mod writer;

pub use header::Header;
pub use keys::KeyTable;
pub use reader::{Record, RecordFile};
pub use scan::{Bare, Scan, scan};
pub use writer::RecordWriter;
