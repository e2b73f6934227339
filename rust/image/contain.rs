//! Makes a panic inside a decoder an error.
//!
//! The decoders are other people's code that reads untrusted bytes. None of the damaged files in the tests
//! makes them panic, but a file that does must cost a record, not a run of many hours.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::Fault;

thread_local! {
    /// Whether this thread is inside [`contain`], where a panic is an expected outcome.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`. A panic in it becomes a [`Fault`], and prints nothing.
///
/// All that a panic can leave half done are buffers that the caller drops or overwrites after an error.
pub fn contain<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    quieten();
    CONTAINED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(false);
    result.unwrap_or_else(|_| Err(Fault::new("the decoder gave up on it (a panic); the image is damaged")))
}

/// Makes the panic hook ignore contained panics. It remains installed, and handles all other panics as
/// before: hooks are global, and removing one would race with other threads that panic.
pub fn quieten() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                hook(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_fault() {
        let empty: &[u8] = &[];
        let fault = contain(|| Ok(empty[0])).unwrap_err();
        assert!(fault.to_string().contains("gave up"), "{fault}");
        assert_eq!(contain(|| Ok(7)).unwrap(), 7);
        assert!(panic::catch_unwind(|| panic!("outside")).is_err());
    }
}
