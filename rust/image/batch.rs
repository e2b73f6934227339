//! Decodes many images of one size into one buffer, in parallel.

use std::borrow::Cow;
use std::collections::HashMap;

use rayon::prelude::*;

use super::decode::{DECODING, zeros};
use super::planes::{Pixelwise, look_up, split};
use super::{Fault, Image, Size};
use crate::error::{Location, counted};
use crate::{Error, Interrupt, Isa, Result};

/// Where the encoded images of a batch come from.
pub trait Source: Sync {
    /// The number of images.
    fn count(&self) -> usize;

    /// The most pixels that one of them may have.
    fn max_pixels(&self) -> usize;

    /// The encoded image number `row`; `buffer` is memory for it, if it has to be read.
    fn bytes<'b>(&'b self, row: usize, buffer: &'b mut Vec<u8>) -> Result<Cow<'b, [u8]>>;

    /// An [`Error::Record`] that says where image number `row` is.
    fn error(&self, row: usize, reason: String) -> Error;

    /// Sorted by this, images are in the order in which they are stored.
    fn place(&self, row: usize) -> (u32, i64);

    /// Announces the images that will be read soon, sorted by their places.
    fn announce(&self, rows: impl Iterator<Item = usize>);
}

/// Images in memory.
pub struct Encoded<'a> {
    /// The images.
    pub images: &'a [&'a [u8]],
    /// The most pixels that one of them may have.
    pub max_pixels: usize,
}

impl Source for Encoded<'_> {
    fn count(&self) -> usize {
        self.images.len()
    }

    fn max_pixels(&self) -> usize {
        self.max_pixels
    }

    fn bytes<'b>(&'b self, row: usize, _: &'b mut Vec<u8>) -> Result<Cow<'b, [u8]>> {
        Ok(Cow::Borrowed(self.images[row]))
    }

    fn error(&self, row: usize, reason: String) -> Error {
        Error::Record { location: Location { position: Some(row), ..Location::default() }, reason }
    }

    fn place(&self, _: usize) -> (u32, i64) {
        (0, 0) // memory is read in any order
    }

    fn announce(&self, _: impl Iterator<Item = usize>) {}
}

/// An image that could not be decoded.
#[derive(Debug)]
pub struct Failure {
    /// Its position in the batch.
    pub row: usize,
    /// What is wrong with it.
    pub error: Error,
}

/// The size of the first image. `None` without images.
pub fn first_size(source: &impl Source) -> Result<Option<Size>> {
    if source.count() == 0 {
        return Ok(None);
    }
    size_of(source, 0, &mut Vec::new()).map(Some)
}

/// The most frequent size of the images whose headers can be read, or the first of several that are equally
/// frequent: if the first image has an odd size, the other images are not to fail for it. `None` if no header
/// can be read. Runs on the current rayon pool.
pub fn usual_size(source: &impl Source, interrupt: &Interrupt) -> Result<Option<Size>> {
    let rows = in_order(source);
    source.announce(rows.iter().copied());
    let mut read: Vec<(usize, Option<Size>)> = rows
        .into_par_iter()
        .map_init(Vec::new, |buffer, row| {
            interrupt.check().map(|()| (row, size_of(source, row, buffer).ok()))
        })
        .collect::<Result<_>>()?;
    read.sort_unstable_by_key(|(row, _)| *row);
    let sizes: Vec<Option<Size>> = read.into_iter().map(|(_, size)| size).collect();
    let mut counts = HashMap::new();
    for size in sizes.iter().flatten() {
        *counts.entry(*size).or_insert(0) += 1;
    }
    // `max_by_key` takes the last of equals: in reverse order, the first.
    Ok(sizes.into_iter().flatten().rev().max_by_key(|size| counts[size]))
}

/// All rows in the order of their places. A disk, or a file system on the network, reads fastest in that
/// order.
fn in_order(source: &impl Source) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..source.count()).collect();
    rows.sort_by_key(|row| source.place(*row));
    rows
}

fn size_of(source: &impl Source, row: usize, buffer: &mut Vec<u8>) -> Result<Size> {
    let bytes = source.bytes(row, buffer)?;
    Image::read(&bytes, source.max_pixels())
        .map(|image| image.size())
        .map_err(|fault| explain(source, row, &fault))
}

/// Decodes all images of `source`, which must have `size`, into `out`, `height x width x 3` bytes each. Runs
/// on the current rayon pool, or on the calling thread if that is in none.
///
/// Returns the images that failed, in order. Their parts of `out` are undefined.
pub fn decode(
    source: &impl Source,
    size: Size,
    out: &mut [u8],
    interrupt: &Interrupt,
) -> Result<Vec<Failure>> {
    each(source, size, out, interrupt, Vec::new, |row, pixels, buffer| {
        decode_one(source, row, size, buffer, pixels)
    })
}

/// The same as [`decode`], into `3 x height x width` floats.
pub fn decode_planes(
    source: &impl Source,
    size: Size,
    isa: Isa,
    out: &mut [f32],
    interrupt: &Interrupt,
) -> Result<Vec<Failure>> {
    each_decoded(source, size, out, interrupt, |_, pixels, planes| {
        split(isa, pixels, size.width, &Pixelwise::default(), planes);
    })
}

/// The same as [`decode`], into `3 x height x width` of what `table` has for each byte; images that are `mirrored`
/// have left and right exchanged.
pub fn decode_by_table<T: Copy + Send + Sync>(
    source: &impl Source,
    size: Size,
    mirrored: Option<&[bool]>,
    table: &[T; 256],
    out: &mut [T],
    interrupt: &Interrupt,
) -> Result<Vec<Failure>> {
    if let Some(mirrored) = mirrored.filter(|mirrored| mirrored.len() != source.count()) {
        let (count, images) = (mirrored.len(), source.count());
        return Err(Error::Value(format!(
            "{count} images are to be mirrored or not, but there are {images}"
        )));
    }
    each_decoded(source, size, out, interrupt, |row, pixels, planes| {
        look_up(pixels, size.width, mirrored.is_some_and(|mirrored| mirrored[row]), table, planes);
    })
}

/// An image of its own size, `height x width x 3` bytes.
pub type Picture = (Size, Vec<u8>);

/// Decodes all images of `source`, whatever their sizes: `None` for those that failed. Runs where [`decode`] runs.
pub fn decode_each(
    source: &impl Source,
    interrupt: &Interrupt,
) -> Result<(Vec<Option<Picture>>, Vec<Failure>)> {
    let rows = in_order(source);
    source.announce(rows.iter().copied());
    let one = |buffer: &mut Vec<u8>, row: usize| {
        interrupt.check()?;
        match picture(source, row, buffer) {
            Err(error @ Error::Memory { .. }) => Err(error), // as in `each`
            result => Ok((row, result)),
        }
    };
    let mut decoded: Vec<(usize, Result<Picture>)> = if in_pool() {
        rows.into_par_iter().map_init(Vec::new, one).collect::<Result<_>>()?
    } else {
        let mut buffer = Vec::new();
        rows.into_iter().map(|row| one(&mut buffer, row)).collect::<Result<_>>()?
    };
    decoded.sort_unstable_by_key(|(row, _)| *row);
    let mut failures = Vec::new();
    let mut take = |(row, result): (usize, Result<Picture>)| {
        result.map_err(|error| failures.push(Failure { row, error })).ok()
    };
    let pictures = decoded.into_iter().map(&mut take).collect();
    Ok((pictures, failures))
}

fn picture(source: &impl Source, row: usize, buffer: &mut Vec<u8>) -> Result<Picture> {
    let explained = |fault| explain(source, row, &fault);
    let bytes = source.bytes(row, buffer)?;
    let image = Image::read(&bytes, source.max_pixels()).map_err(explained)?;
    let size = image.size();
    let mut pixels = zeros(size.bytes()).map_err(explained)?;
    image.decode(&mut pixels).map_err(explained)?;
    Ok((size, pixels))
}

/// Whether the calling thread is in a rayon pool. Outside of one, rayon would start a pool for the whole process,
/// which a fork does not copy.
fn in_pool() -> bool {
    rayon::current_thread_index().is_some()
}

/// Memory of a thread: for an encoded image, and for the pixels of one.
type Scratch = (Vec<u8>, Vec<u8>);

/// Decodes each image, and calls `write` with its row, its pixels and its part of `out`.
fn each_decoded<T: Send>(
    source: &impl Source,
    size: Size,
    out: &mut [T],
    interrupt: &Interrupt,
    write: impl Fn(usize, &[u8], &mut [T]) + Sync,
) -> Result<Vec<Failure>> {
    each(source, size, out, interrupt, Default::default, |row, part, (buffer, pixels): &mut Scratch| {
        if pixels.is_empty() {
            *pixels = zeros(size.bytes()).map_err(|fault| explain(source, row, &fault))?;
        }
        decode_one(source, row, size, buffer, pixels)?;
        write(row, pixels, part);
        Ok(())
    })
}

/// Calls `work` for each image, with its part of `out` and the scratch of the thread.
fn each<T: Send, S>(
    source: &impl Source,
    size: Size,
    out: &mut [T],
    interrupt: &Interrupt,
    scratch: impl Fn() -> S + Sync + Send,
    work: impl Fn(usize, &mut [T], &mut S) -> Result<()> + Sync,
) -> Result<Vec<Failure>> {
    if size.bytes() == 0 || Some(out.len()) != source.count().checked_mul(size.bytes()) {
        let (count, length) = (source.count(), out.len());
        return Err(Error::Value(format!("{count} images of {size} do not fill a buffer of {length}")));
    }
    let mut jobs: Vec<(usize, &mut [T])> = out.chunks_exact_mut(size.bytes()).enumerate().collect();
    jobs.sort_by_key(|(row, _)| source.place(*row)); // as `in_order`
    source.announce(jobs.iter().map(|(row, _)| *row));
    let one = |scratch: &mut S, (row, pixels): (usize, &mut [T])| {
        interrupt.check()?;
        match work(row, pixels, scratch) {
            Ok(()) => Ok(None),
            // It says nothing about the image: what is left out must not depend on the memory.
            Err(error @ Error::Memory { .. }) => Err(error),
            Err(error) => Ok(Some(Failure { row, error })),
        }
    };
    let failures: Vec<Option<Failure>> = if in_pool() {
        jobs.into_par_iter().map_init(&scratch, one).collect::<Result<_>>()?
    } else {
        let mut scratch = scratch();
        jobs.into_iter().map(|job| one(&mut scratch, job)).collect::<Result<_>>()?
    };
    let mut failures: Vec<Failure> = failures.into_iter().flatten().collect();
    failures.sort_by_key(|failure| failure.row);
    Ok(failures)
}

fn decode_one(
    source: &impl Source,
    row: usize,
    size: Size,
    buffer: &mut Vec<u8>,
    pixels: &mut [u8],
) -> Result<()> {
    let bytes = source.bytes(row, buffer)?;
    let image = Image::read(&bytes, source.max_pixels()).map_err(|fault| explain(source, row, &fault))?;
    if image.size() != size {
        let reason = format!(
            "the image is {} pixels (height x width), not {size}; images of one batch must have one size",
            image.size()
        );
        return Err(source.error(row, reason));
    }
    image.decode(pixels).map_err(|fault| explain(source, row, &fault))
}

fn explain(source: &impl Source, row: usize, fault: &Fault) -> Error {
    match fault {
        Fault::Content(what) => source.error(row, what.to_string()),
        Fault::Memory { bytes, available } => Error::Memory {
            bytes: *bytes,
            what: DECODING.into(),
            available: *available,
            advice: format!(", {}; fewer threads take less", place_of(source, row)),
        },
    }
}

/// Where image number `row` is, in words.
fn place_of(source: &impl Source, row: usize) -> String {
    match source.error(row, String::new()) {
        Error::Record { location, .. } => location.to_string(),
        other => other.to_string(),
    }
}

/// Bytes of the decoded images, with `value_bytes` for each value; the largest number if they are more.
pub fn bytes_of(source: &impl Source, size: Size, value_bytes: usize) -> u64 {
    let factors = [size.height, size.width, 3, value_bytes];
    factors.iter().fold(source.count() as u64, |product, factor| product.saturating_mul(*factor as u64))
}

/// The error for a batch of images of `size`, with values of `value_bytes`, for which there is no memory. It
/// names the first image that has this size, which may be the odd one out and have decided the size.
pub fn too_large(source: &impl Source, size: Size, value_bytes: usize, available: Option<u64>) -> Error {
    let mut buffer = Vec::new();
    let first =
        (0..source.count()).find(|row| size_of(source, *row, &mut buffer).is_ok_and(|own| own == size));
    let first = first.map_or("none of them has this size".into(), |row| {
        format!("the first of this size is {}", place_of(source, row))
    });
    Error::Memory {
        bytes: bytes_of(source, size, value_bytes),
        what: format!(
            "the pixels of a batch, {} of {size} (height x width)",
            counted(source.count() as u64, "image")
        )
        .into(),
        available,
        advice: format!(
            "; {first}. If it is the odd one out, leave it out (in a run with on_error='skip') or give the size of \
             the rest as size=(height, width). Otherwise decode fewer images at once (in a run, lower bag_size, or hold \
             fewer images ahead with prefetch or memory)"
        ),
    }
}

/// Why each image cannot be read, for a `source` of which none can.
pub fn unreadable(source: &impl Source, interrupt: &Interrupt) -> Result<Vec<Failure>> {
    let (mut failures, mut buffer) = (Vec::new(), Vec::new());
    for row in 0..source.count() {
        interrupt.check()?;
        failures.extend(size_of(source, row, &mut buffer).err().map(|error| Failure { row, error }));
    }
    Ok(failures)
}

/// Moves the images of `size` that did not fail to the front of `out`, and returns their number.
pub fn close_gaps<T: Copy>(out: &mut [T], size: Size, failures: &[Failure]) -> usize {
    let frame = size.bytes();
    let mut failed = failures.iter().map(|failure| failure.row).peekable();
    let mut kept = 0;
    for row in 0..out.len() / frame {
        if failed.next_if_eq(&row).is_some() {
            continue;
        }
        if kept != row {
            out.copy_within(row * frame..(row + 1) * frame, kept * frame);
        }
        kept += 1;
    }
    kept
}

#[cfg(test)]
mod tests;
