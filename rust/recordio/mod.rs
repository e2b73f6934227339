//! `MXNet` `RecordIO`: the `.rec` and `.idx` files that `im2rec` and `InsightFace` write.
//!
//! [`framing`] knows how a record lies in the file, [`header`] what its first bytes say; both work
//! on plain byte slices. [`RecordFile`] reads records by position, [`KeyTable`] knows the position
//! of each key, [`scan`] reads all headers in one pass, [`RecordWriter`] writes.

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
