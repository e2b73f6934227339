//! `MXNet` `RecordIO`: the `.rec` and `.idx` files that `im2rec` and `InsightFace` write.
//!
//! [`framing`] knows how a record lies in the file, [`header`] what its first bytes say; both work
//! on plain byte slices. [`RecordFile`] reads records by position.

pub mod framing;
pub mod header;
mod reader;
mod sniff;

pub use header::Header;
pub use reader::{Record, RecordFile};
