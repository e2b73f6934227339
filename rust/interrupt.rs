//! Stops a long call from outside.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// A flag that the caller raises (Ctrl-C) and that long loops poll between units of work.
///
/// Units of work take milliseconds, so a raised flag ends a call well within a second.
#[derive(Debug, Default)]
pub struct Interrupt(AtomicBool);

impl Interrupt {
    /// A flag that is not raised.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Makes the running call end with [`Error::Interrupted`].
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns [`Error::Interrupted`] once the flag was raised.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}
