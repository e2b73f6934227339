//! Allocations that may fail. Everything that grows with the input is allocated here.
//!
//! An ordinary allocation of Rust ends the process where there is no memory. These return [`Error::Memory`].
//!
//! Linux seldom refuses memory: it promises more than there is, and kills a process when it uses too much. So
//! the memory that is [`available`] is looked at before each large allocation, and after many small ones.

use std::borrow::Cow;
use std::cell::Cell;

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;

use crate::{Error, Result};

mod available;

use available::available;

/// Bytes that are allocated between two looks at the available memory, by all threads of a call together. A look
/// takes 0.1 ms, and to fill these takes 5 ms.
const UNSEEN: u64 = 16 << 20;

/// Bytes that must stay available: what may be allocated until the next look, and as much again for all that
/// does not grow with the input.
const KEPT_FREE: u64 = 2 * UNSEEN;

thread_local! {
    /// Bytes that this thread has allocated since its last look. A long call has threads of its own, so it counts from
    /// 0, and calls beside it change nothing.
    static SINCE_LOOK: Cell<u64> = const { Cell::new(0) };
}

/// A vector of zeros. The operating system makes them when they are first used, so that the threads that fill
/// the vector share this work.
pub fn zeroed<T: Zeroable>(len: usize, what: &'static str) -> Result<Vec<T>> {
    let bytes = bytes_of::<T>(len);
    admit(bytes, 0, what)?;
    try_zeroed_vec(len).map_err(|()| shortage(bytes, what, None))
}

/// A vector with room for `capacity` items.
pub fn empty<T>(capacity: usize, what: &'static str) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    reserve(&mut vec, capacity, what)?;
    Ok(vec)
}

/// The items in a vector. The iterator must know how many it has at most.
pub fn collect<T>(items: impl IntoIterator<Item = T>, what: &'static str) -> Result<Vec<T>> {
    let items = items.into_iter();
    let mut collected = empty(items.size_hint().1.unwrap_or(usize::MAX), what)?;
    collected.extend(items);
    Ok(collected)
}

/// Makes a vector longer, with copies of a value, or shorter.
pub fn resize<T: Clone>(vec: &mut Vec<T>, len: usize, value: T, what: &'static str) -> Result<()> {
    reserve(vec, len.saturating_sub(vec.len()), what)?;
    vec.resize(len, value);
    Ok(())
}

/// Adds an item at the end.
#[inline]
pub fn push<T>(vec: &mut Vec<T>, item: T, what: &'static str) -> Result<()> {
    reserve_ahead(vec, 1, 0, what)?;
    vec.push(item);
    Ok(())
}

/// Moves all items to the end of another vector.
pub fn append<T>(vec: &mut Vec<T>, other: &mut Vec<T>, what: &'static str) -> Result<()> {
    if vec.is_empty() {
        std::mem::swap(vec, other);
        return Ok(());
    }
    reserve(vec, other.len(), what)?;
    vec.append(other);
    Ok(())
}

/// Makes room for exactly `more` items.
pub fn reserve<T>(vec: &mut Vec<T>, more: usize, what: &'static str) -> Result<()> {
    reserve_besides(vec, more, 0, what)
}

/// Makes room for `more` items, and for others that may follow. If the vector must grow, `besides` further bytes
/// must be available.
#[inline]
pub fn reserve_ahead<T>(vec: &mut Vec<T>, more: usize, besides: u64, what: &'static str) -> Result<()> {
    if vec.capacity() - vec.len() >= more { Ok(()) } else { double(vec, more, besides, what) }
}

/// Doubles a vector, or makes it a little longer where there is no memory for that. A look does not see what is
/// reserved and not filled yet, and all threads may double theirs at once: there must be room for all.
#[cold]
fn double<T>(vec: &mut Vec<T>, more: usize, besides: u64, what: &'static str) -> Result<()> {
    let others = threads() - 1;
    let len = vec.len();
    let mut reserve = |more| {
        let by_others = bytes_of::<T>(more).saturating_mul(others);
        reserve_besides(vec, more, besides.saturating_add(by_others), what)
    };
    reserve(more.max(len).max(4)).or_else(|_| reserve(more.max(len / 16)))
}

fn reserve_besides<T>(vec: &mut Vec<T>, more: usize, besides: u64, what: &'static str) -> Result<()> {
    if vec.capacity() - vec.len() >= more {
        return Ok(());
    }
    let bytes = bytes_of::<T>(more);
    admit(bytes, besides, what)?;
    vec.try_reserve_exact(more).map_err(|_| shortage(bytes, what, None))
}

/// Returns an error if `bytes` are 16 MB or more and are not available. Nothing is allocated or counted.
pub fn ask(bytes: u64, what: impl Into<Cow<'static, str>>) -> Result<()> {
    if bytes < UNSEEN { Ok(()) } else { look(bytes, 0, what) }
}

/// Returns an error if `bytes` cannot be allocated, for callers whose allocator ends the process then.
#[cfg(feature = "python")]
pub fn probe(bytes: u64, what: String) -> Result<()> {
    let refused = Vec::<u8>::new().try_reserve_exact(bytes as usize).is_err();
    if refused { Err(shortage(bytes, what, None)) } else { ask(bytes, what) }
}

/// Counts bytes that are about to be allocated, and looks at the available memory when this thread has had its share:
/// `besides` further bytes must be available then, too. After an error, the next allocation looks again.
fn admit(bytes: u64, besides: u64, what: &'static str) -> Result<()> {
    let unseen = SINCE_LOOK.get().saturating_add(bytes);
    if unseen < UNSEEN / threads() {
        SINCE_LOOK.set(unseen);
        return Ok(());
    }
    let looked = look(bytes, besides, what);
    SINCE_LOOK.set(if looked.is_ok() { 0 } else { UNSEEN });
    looked
}

/// The threads of the pool that this thread is in. To ask rayon outside of one would start its global pool, which a
/// fork does not copy.
fn threads() -> u64 {
    rayon::current_thread_index().map_or(1, |_| rayon::current_num_threads() as u64)
}

/// Returns an error if `bytes` and `besides` are not available.
fn look(bytes: u64, besides: u64, what: impl Into<Cow<'static, str>>) -> Result<()> {
    let left = available().unwrap_or(u64::MAX);
    let needed = bytes.saturating_add(besides).saturating_add(KEPT_FREE);
    if needed <= left { Ok(()) } else { Err(shortage(bytes, what, Some(left))) }
}

fn bytes_of<T>(len: usize) -> u64 {
    (len as u64).saturating_mul(size_of::<T>() as u64)
}

#[cold]
fn shortage(bytes: u64, what: impl Into<Cow<'static, str>>, available: Option<u64>) -> Error {
    Error::Memory { bytes, what: what.into(), available, advice: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_counts_its_share() {
        let counted = |bytes: usize| {
            empty::<u8>(bytes, "a test").unwrap();
            SINCE_LOOK.get()
        };
        assert_eq!(SINCE_LOOK.get(), 0, "other threads change nothing");
        assert_eq!(counted(1 << 20), 1 << 20);
        assert_eq!(counted(14 << 20), 15 << 20);
        assert_eq!(counted(1 << 20), 0, "looked");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        pool.install(|| {
            assert_eq!(counted(3 << 20), 3 << 20);
            assert_eq!(counted(1 << 20), 0, "looked");
        });
    }

    #[test]
    fn after_an_error_the_next_allocation_looks_again() {
        assert!(empty::<u8>(1 << 50, "a test").is_err());
        assert_eq!(SINCE_LOOK.get(), UNSEEN);
        empty::<u8>(1, "a test").unwrap();
        assert_eq!(SINCE_LOOK.get(), 0);
    }
}
