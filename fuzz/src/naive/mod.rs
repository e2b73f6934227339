//! What is right, in the simplest form: slow code that allocates, to be compared with the crate's.

pub mod mining;
pub mod png;
pub mod recordio;
