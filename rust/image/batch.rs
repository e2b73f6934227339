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
mod tests {
    use std::sync::Mutex;
    use std::thread::ThreadId;
    use std::time::Instant;

    use super::*;

    /// A gray PNG, `width` pixels wide and one high, of one value.
    fn png(width: u32, value: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut bytes, width, 1);
        encoder.set_color(::png::ColorType::Grayscale);
        let data = vec![value; width as usize];
        encoder.write_header().unwrap().write_image_data(&data).unwrap();
        bytes
    }

    fn encoded<'a>(images: &'a [&'a [u8]]) -> Encoded<'a> {
        Encoded { images, max_pixels: 100 }
    }

    fn batch(images: &[Vec<u8>], skip: bool) -> Result<(Vec<u8>, Vec<Failure>)> {
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let (source, interrupt) = (encoded(&images), Interrupt::new());
        let size = if skip { usual_size(&source, &interrupt) } else { first_size(&source) };
        let Some(size) = size? else { return Ok((vec![], vec![])) };
        let mut out = vec![0; images.len() * size.bytes()];
        let failures = decode(&source, size, &mut out, &interrupt)?;
        let kept = close_gaps(&mut out, size, &failures);
        out.truncate(kept * size.bytes());
        Ok((out, failures))
    }

    #[test]
    fn rows_in_order() {
        let images: Vec<_> = (0..50).map(|value| png(2, value)).collect();
        let (out, failures) = batch(&images, false).unwrap();
        assert!(failures.is_empty());
        assert_eq!(out, (0..50).flat_map(|value| [value; 6]).collect::<Vec<u8>>());
        assert!(batch(&[], false).unwrap().0.is_empty());
    }

    #[test]
    fn images_of_any_size_and_by_a_table() {
        let images = [png(2, 1), b"GIF89a".to_vec(), png(3, 5)];
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let (source, interrupt) = (encoded(&images), Interrupt::new());
        let (pictures, failures) = decode_each(&source, &interrupt).unwrap();
        let found: Vec<_> = pictures.into_iter().map(|picture| picture.map(|(_, pixels)| pixels)).collect();
        assert_eq!(found, [Some(vec![1; 6]), None, Some(vec![5; 9])]);
        assert_eq!(failures.iter().map(|failure| failure.row).collect::<Vec<_>>(), [1]);
        let (size, table) = (Size { height: 1, width: 2 }, std::array::from_fn(|byte| byte as f32 + 0.5));
        let mut out = vec![0.0; 18];
        let failures = decode_by_table(&source, size, None, &table, &mut out, &interrupt).unwrap();
        assert_eq!(failures.iter().map(|failure| failure.row).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(out[..6], [1.5; 6]);
        assert!(decode_by_table(&source, size, Some(&[true]), &table, &mut out, &interrupt).is_err());
    }

    /// Images that lie in the order of `places`. Notes who reads them, and in which order.
    struct Noted<'a> {
        images: &'a [&'a [u8]],
        places: &'a [i64],
        announced: Mutex<Vec<usize>>,
        read: Mutex<Vec<(usize, ThreadId)>>,
        /// As many reads are waited for, so that they are at the same time.
        together: usize,
    }

    impl<'a> Noted<'a> {
        fn new(images: &'a [&'a [u8]], places: &'a [i64], together: usize) -> Self {
            Self { images, places, announced: Mutex::default(), read: Mutex::default(), together }
        }

        fn order(&self) -> Vec<usize> {
            self.read.lock().unwrap().iter().map(|(row, _)| *row).collect()
        }
    }

    impl Source for Noted<'_> {
        fn count(&self) -> usize {
            self.images.len()
        }

        fn max_pixels(&self) -> usize {
            3
        }

        fn bytes<'b>(&'b self, row: usize, _: &'b mut Vec<u8>) -> Result<Cow<'b, [u8]>> {
            self.read.lock().unwrap().push((row, std::thread::current().id()));
            let begin = Instant::now();
            while self.read.lock().unwrap().len() < self.together {
                assert!(begin.elapsed().as_secs() < 20, "the other image is not read at the same time");
                std::thread::yield_now();
            }
            Ok(Cow::Borrowed(self.images[row]))
        }

        fn error(&self, row: usize, reason: String) -> Error {
            encoded(self.images).error(row, reason)
        }

        fn place(&self, row: usize) -> (u32, i64) {
            (0, self.places[row])
        }

        fn announce(&self, rows: impl Iterator<Item = usize>) {
            self.announced.lock().unwrap().extend(rows);
        }
    }

    type Decode<'a> = &'a (dyn Fn(&Noted, &Interrupt) -> (Vec<u8>, Vec<usize>) + Sync);

    #[test]
    fn images_are_read_in_the_order_in_which_they_are_stored() {
        let images = [png(2, 1), png(3, 2), png(2, 3), png(4, 4), png(2, 5)];
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let size = Size { height: 1, width: 2 };
        let rows = |failures: &[Failure]| failures.iter().map(|failure| failure.row).collect::<Vec<_>>();
        let table: [u8; 256] = std::array::from_fn(|byte| byte as u8);
        let ways: [(&str, Decode); 4] = [
            ("bytes", &|source, interrupt| {
                let mut out = vec![0; 30];
                let failures = decode(source, size, &mut out, interrupt).unwrap();
                (out, rows(&failures))
            }),
            ("planes", &|source, interrupt| {
                let mut out = vec![0.0; 30];
                let failures = decode_planes(source, size, Isa::PORTABLE, &mut out, interrupt).unwrap();
                (out.into_iter().map(|value| value as u8).collect(), rows(&failures))
            }),
            ("by a table", &|source, interrupt| {
                let mut out = vec![0; 30];
                let mirrored = Some(&[true, false, true, false, true][..]);
                let failures = decode_by_table(source, size, mirrored, &table, &mut out, interrupt).unwrap();
                (out, rows(&failures))
            }),
            ("each", &|source, interrupt| {
                let (pictures, failures) = decode_each(source, interrupt).unwrap();
                let of_size = |picture: Option<Picture>| {
                    picture.filter(|(own, _)| *own == size).map_or(vec![0; 6], |(_, pixels)| pixels)
                };
                (pictures.into_iter().flat_map(of_size).collect(), rows(&failures))
            }),
        ];
        for (name, way) in ways {
            let source = Noted::new(&images, &[7, 6, 9, -1, 8], 0);
            let (out, failed) = way(&source, &Interrupt::new());
            // The image of four pixels is too large, one of three only where all have one size.
            let expected: &[usize] = if name == "each" { &[3] } else { &[1, 3] };
            assert_eq!(failed, expected, "{name}");
            for (row, pixels) in out.chunks_exact(6).enumerate().filter(|(row, _)| row % 2 == 0) {
                assert_eq!(pixels, [row as u8 + 1; 6], "{name}: image {row}");
            }
            // Outside of a pool, by the calling thread, one after another.
            assert_eq!(source.order(), [3, 1, 0, 4, 2], "{name}");
            assert_eq!(*source.announced.lock().unwrap(), [3, 1, 0, 4, 2], "{name}");
            let own = std::thread::current().id();
            assert!(source.read.lock().unwrap().iter().all(|(_, thread)| *thread == own), "{name}");
            // In one, by its threads, at the same time.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            let source = Noted::new(&images, &[7, 6, 9, -1, 8], 2);
            let (again, failed) = pool.install(|| way(&source, &Interrupt::new()));
            assert_eq!((again, failed.as_slice()), (out, expected), "{name}");
            let mut order = source.order();
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4], "{name}");
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let source = Noted::new(&images, &[7, 6, 9, -1, 8], 2);
        let size = pool.install(|| usual_size(&source, &Interrupt::new()).unwrap());
        assert_eq!(size, Some(Size { height: 1, width: 2 }));
        assert_eq!(*source.announced.lock().unwrap(), [3, 1, 0, 4, 2]);
    }

    #[test]
    fn why_no_image_can_be_read() {
        let images = [png(2, 1), b"GIF89a".to_vec(), png(4, 2), vec![]];
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let found = unreadable(&Noted::new(&images, &[0; 4], 0), &Interrupt::new()).unwrap();
        let found: Vec<_> = found.iter().map(|failure| (failure.row, failure.error.to_string())).collect();
        assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(found[0].1.contains("image [1]") && found[0].1.contains("GIF"), "{}", found[0].1);
        assert!(found[1].1.contains("4 in all, and at most 3"), "{}", found[1].1);
        let raised = Interrupt::new();
        raised.raise();
        assert!(unreadable(&Noted::new(&images, &[0; 4], 0), &raised).is_err());
        assert!(decode_each(&Noted::new(&images, &[0; 4], 0), &raised).is_err());
    }

    #[test]
    fn bytes_of_a_batch() {
        let image = png(2, 1);
        let images = [image.as_slice(); 3];
        let of = |height, width, bytes| bytes_of(&encoded(&images), Size { height, width }, bytes);
        assert_eq!(of(5, 7, 1), 3 * 105);
        assert_eq!(of(5, 7, 4), 3 * 420);
        assert_eq!(of(1 << 40, 1 << 40, 4), u64::MAX);
    }

    #[test]
    fn failures_are_named_and_close_up() {
        let images = [b"GIF89a".to_vec(), png(2, 1), png(3, 2), png(2, 3), vec![], png(2, 4)];
        let (out, failures) = batch(&images, true).unwrap();
        assert_eq!(out, [1, 3, 4].iter().flat_map(|value| [*value; 6]).collect::<Vec<u8>>());
        assert_eq!(failures.iter().map(|failure| failure.row).collect::<Vec<_>>(), [0, 2, 4]);
        let message = failures[1].error.to_string();
        assert!(message.starts_with("image [2]: the image is 1 x 3 pixels"), "{message}");
        assert!(message.contains("1 x 2"), "{message}");
        assert!(batch(&images, false).unwrap_err().to_string().contains("GIF"));
    }

    #[test]
    fn the_usual_size_is_the_most_frequent_and_of_equals_the_first() {
        let usual = |widths: &[u32]| {
            let images: Vec<_> =
                widths.iter().map(|&width| if width == 0 { vec![] } else { png(width, 1) }).collect();
            let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
            usual_size(&encoded(&images), &Interrupt::new()).unwrap().map(|size| size.width)
        };
        assert_eq!(usual(&[3, 2, 2]), Some(2));
        assert_eq!(usual(&[0, 3, 2, 2, 3]), Some(3));
        assert_eq!(usual(&[0, 0]), None);
        assert_eq!(usual(&[]), None);
    }

    #[test]
    fn an_interrupt_ends_the_batch() {
        let image = png(2, 1);
        let (images, interrupt) = ([image.as_slice()], Interrupt::new());
        interrupt.raise();
        assert!(matches!(usual_size(&encoded(&images), &interrupt), Err(Error::Interrupted)));
        let size = Size { height: 1, width: 2 };
        assert!(matches!(decode(&encoded(&images), size, &mut [0; 6], &interrupt), Err(Error::Interrupted)));
        assert!(matches!(decode(&encoded(&images), size, &mut [0; 5], &interrupt), Err(Error::Value(_))));
    }

    #[test]
    fn a_batch_without_memory_names_the_first_image_of_its_size() {
        let images = [png(2, 1), png(3, 1), png(3, 2)];
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let message =
            |height, width| too_large(&encoded(&images), Size { height, width }, 4, None).to_string();
        let found = message(1, 3);
        let expected = "not enough memory: 108 bytes for the pixels of a batch, 3 images of 1 x 3 (height x \
                        width); the first of this size is image [1]. ";
        assert!(found.starts_with(expected), "{found}");
        let beyond = message(1 << 40, 1 << 40);
        assert!(beyond.contains("none of them has this size"), "{beyond}");
    }

    #[test]
    fn too_little_memory_ends_a_batch() {
        let image = png(2, 1);
        let images = [image.as_slice()];
        let (source, size) = (encoded(&images), Size { height: 1, width: 2 });
        let no_memory = |row, _: &mut [u8], (): &mut ()| {
            Err(explain(&source, row, &Fault::Memory { bytes: 7, available: None }))
        };
        let Err(error) = each(&source, size, &mut [0; 6], &Interrupt::new(), || (), no_memory) else {
            panic!("expected an error");
        };
        let message = error.to_string();
        assert_eq!(
            message,
            "not enough memory: 7 bytes for decoding one image, image [0]; fewer threads take less"
        );
    }
}
