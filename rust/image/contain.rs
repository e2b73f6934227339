//! A panic inside a decoder becomes an error.
//!
//! The decoders are other people's code fed with untrusted bytes. None of the damaged files in the tests
//! makes them panic, but one that does must cost a record, not a day-long run.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::Fault;

thread_local! {
    /// Whether this thread is inside [`contain`], where a panic is an expected outcome.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it is a [`Fault`] and prints nothing.
///
/// What `work` may leave half done are buffers that the caller drops or overwrites after an error.
pub fn contain<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    quieten();
    CONTAINED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(false);
    result.unwrap_or_else(|_| Err(Fault::new("the decoder gave up on it (a panic); the image is damaged")))
}

/// Makes the panic hook pass over contained panics. It stays in place for all others: hooks are global,
/// and taking one off again would race with other threads that panic.
fn quieten() {
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
