//! Allocations that may fail. Everything that grows with the input is allocated here.
//!
//! An ordinary allocation of Rust ends the process where there is no memory. These return [`Error::Memory`].
//!
//! Linux seldom refuses memory: it promises more than there is, and kills a process when it uses too much. So
//! the memory that is [`available`] is looked at before each large allocation, and after many small ones.

use std::alloc::{Layout, alloc_zeroed};
use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, Result};

mod available;

use available::available;

/// Bytes that are allocated between two looks at the available memory. A look takes 0.1 ms, and to fill these
/// takes 5 ms.
const UNSEEN: usize = 16 << 20;

/// Bytes that stay available: what is allocated between two looks, and as much for everything else.
const KEPT_FREE: u64 = 2 * UNSEEN as u64;

/// Bytes allocated since the last look, by all threads.
static SINCE_LOOK: AtomicUsize = AtomicUsize::new(0);

/// Begins to count at 0: what needs little memory is not to fail because little is left.
pub fn restart_count() {
    SINCE_LOOK.store(0, Ordering::Relaxed);
}

/// Types that have a value of which all bytes are zero.
///
/// # Safety
///
/// All bytes zero must be a valid value of the type.
pub unsafe trait Zero: Copy {}

// SAFETY: zero is a number.
unsafe impl Zero for u8 {}
// SAFETY: as above.
unsafe impl Zero for u16 {}
// SAFETY: as above.
unsafe impl Zero for u32 {}
// SAFETY: as above.
unsafe impl Zero for i64 {}
// SAFETY: as above.
unsafe impl Zero for f32 {}
// SAFETY: as above.
unsafe impl Zero for f64 {}
// SAFETY: an array has the bytes of its items and no others.
unsafe impl<T: Zero, const N: usize> Zero for [T; N] {}

/// A vector of zeros. The operating system makes them when they are first used, so that the threads that fill
/// the vector share this work.
pub fn zeroed<T: Zero>(len: usize, what: &'static str) -> Result<Vec<T>> {
    let layout = Layout::array::<T>(len).map_err(|_| shortage::<T>(len, what, None))?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    admit(layout.size() as u64, 0).map_err(|left| shortage::<T>(len, what, Some(left)))?;
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) }.cast::<T>();
    if start.is_null() {
        return Err(shortage::<T>(len, what, None));
    }
    // SAFETY: the global allocator gave this memory for `len` items, and zeros are such items.
    Ok(unsafe { Vec::from_raw_parts(start, len, len) })
}

/// A vector with room for so many items.
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
    reserve_one(vec, || 0, what)?;
    vec.push(item);
    Ok(())
}

/// Makes room for one item, and for some more, as others may follow. When the vector must grow, `besides` more
/// bytes must be available.
#[inline]
pub fn reserve_one<T>(vec: &mut Vec<T>, besides: impl FnOnce() -> u64, what: &'static str) -> Result<()> {
    if vec.len() < vec.capacity() { Ok(()) } else { grow_ahead(vec, besides(), what) }
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

/// Makes room for `more` items, and for no others.
pub fn reserve<T>(vec: &mut Vec<T>, more: usize, what: &'static str) -> Result<()> {
    grow(vec, more, 0, what)
}

fn grow<T>(vec: &mut Vec<T>, more: usize, besides: u64, what: &'static str) -> Result<()> {
    if vec.capacity() - vec.len() >= more {
        return Ok(());
    }
    admit(bytes_of::<T>(more), besides).map_err(|left| shortage::<T>(more, what, Some(left)))?;
    vec.try_reserve_exact(more).map_err(|_| shortage::<T>(more, what, None))
}

/// Makes room for as many items again, or for fewer where there is no memory for these. What is not filled at
/// once is not seen by the next look, and other threads may be about to do the same.
#[cold]
fn grow_ahead<T>(vec: &mut Vec<T>, besides: u64, what: &'static str) -> Result<()> {
    let others = rayon::current_num_threads() as u64 - 1;
    let len = vec.len();
    let mut grow =
        |more| grow(vec, more, besides.saturating_add(bytes_of::<T>(more).saturating_mul(others)), what);
    grow(len.max(4)).or_else(|_| grow((len / 16).max(1)))
}

/// Returns an error if this is much memory, and it is not available. Nothing is allocated.
pub fn ask(bytes: u64, what: impl Into<Cow<'static, str>>) -> Result<()> {
    let left = if bytes < UNSEEN as u64 { u64::MAX } else { available().unwrap_or(u64::MAX) };
    let enough = bytes.saturating_add(KEPT_FREE) <= left;
    if enough { Ok(()) } else { Err(shortage::<u8>(bytes as usize, what, Some(left))) }
}

/// Returns an error if this memory cannot be allocated, for callers whose allocator ends the process then.
pub fn probe(bytes: u64, what: String) -> Result<()> {
    let refused = Vec::<u8>::new().try_reserve_exact(bytes as usize).is_err();
    if refused { Err(shortage::<u8>(bytes as usize, what, None)) } else { ask(bytes, what) }
}

/// Counts bytes that will be used, and looks at the memory from time to time. The error is what is available.
fn admit(bytes: u64, besides: u64) -> std::result::Result<(), u64> {
    let new = bytes.min(UNSEEN as u64) as usize;
    if SINCE_LOOK.fetch_add(new, Ordering::Relaxed) + new < UNSEEN {
        return Ok(());
    }
    let left = available().unwrap_or(u64::MAX);
    let enough = bytes.saturating_add(besides).saturating_add(KEPT_FREE) <= left;
    SINCE_LOOK.store(if enough { 0 } else { UNSEEN }, Ordering::Relaxed);
    if enough { Ok(()) } else { Err(left) }
}

fn bytes_of<T>(len: usize) -> u64 {
    (len as u64).saturating_mul(size_of::<T>() as u64)
}

#[cold]
fn shortage<T>(len: usize, what: impl Into<Cow<'static, str>>, available: Option<u64>) -> Error {
    Error::Memory { bytes: bytes_of::<T>(len), what: what.into(), available, advice: String::new() }
}
