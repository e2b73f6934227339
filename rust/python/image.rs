//! Bindings of [`crate::image`].

use std::path::PathBuf;

use numpy::{
    Element, PyArray1, PyArray2, PyArray4, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray4,
    PyReadwriteArray4, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyList;

use super::call;
use super::recordio::{PyRecord, PyRecordFile, as_tuple};
use crate::Isa;
use crate::image::Size;
use crate::image::augment::{self, Augment, Chosen, Jitter, Order};
use crate::image::batch::{self, Encoded, Failure, Source};
use crate::image::looks::{self, MEASURES, SKETCH};
use crate::image::records::{RecordRows, Records};
use crate::image::twins;
use crate::recordio::RecordFile;
use crate::{Error, Interrupt, Result, memory};

/// Pixels (B, H, W, 3) uint8 or (B, 3, H, W) float32, the number of images that were decoded (they come
/// first), and for each of the others its index in the batch and a `RecordError`.
type Decoded<'py> = (Bound<'py, PyAny>, usize, Bound<'py, PyList>);

/// Keys, offsets, lengths, numbers of files and labels; and for each file, whether the keys are the ids in its
/// records, and the file that its index was read from.
type Rows<'py> = (
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i64>,
    Option<PyReadonlyArray1<'py, i64>>,
    Option<PyReadonlyArray1<'py, u32>>,
    Option<PyReadonlyArray1<'py, i64>>,
    Vec<bool>,
    Vec<Option<PathBuf>>,
);

/// `fasttriplet.decode_images` after validation.
#[pyfunction]
#[pyo3(signature = (encoded, *, size, max_pixels, skip, threads))]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn decode_images(
    py: Python<'_>,
    encoded: Vec<PyBackedBytes>,
    size: Option<(usize, usize)>,
    max_pixels: usize,
    skip: bool,
    threads: Option<usize>,
) -> PyResult<Decoded<'_>> {
    let images: Vec<&[u8]> = encoded.iter().map(|bytes| &**bytes).collect();
    decode(py, &Encoded { images: &images, max_pixels }, size, skip, false, threads)
}

/// `fasttriplet.decode_rows` after validation.
#[pyfunction]
#[pyo3(signature = (files, rows, *, size, max_pixels, skip, planes, threads))]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)] // the signature is Python's
fn decode_rows<'py>(
    py: Python<'py>,
    files: Vec<Bound<'py, PyRecordFile>>,
    rows: Rows<'py>,
    size: Option<(usize, usize)>,
    max_pixels: usize,
    skip: bool,
    planes: bool,
    threads: Option<usize>,
) -> PyResult<Decoded<'py>> {
    with_records(py, &files, &rows, max_pixels, |records| decode(py, records, size, skip, planes, threads))
}

/// Where to write the images of a batch as planes.
#[derive(FromPyObject)]
enum Planes<'py> {
    Floats(PyReadwriteArray4<'py, f32>),
    Bytes(PyReadwriteArray4<'py, u8>),
}

/// Decodes images into `out`, (B, 3, H, W): float32 of what `table` has for each byte, or the bytes. Returns how
/// many were decoded (they come first), and what `decode_rows` says about those that failed.
#[pyfunction]
#[pyo3(signature = (files, rows, out, *, table, mirrored, max_pixels, skip, threads))]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments, clippy::large_types_passed_by_value)] // the signature is Python's
fn decode_into<'py>(
    py: Python<'py>,
    files: Vec<Bound<'py, PyRecordFile>>,
    rows: Rows<'py>,
    out: Planes<'py>,
    table: [f32; 256],
    mirrored: Option<PyReadonlyArray1<'py, bool>>,
    max_pixels: usize,
    skip: bool,
    threads: Option<usize>,
) -> PyResult<(usize, Bound<'py, PyList>)> {
    let mirrored = mirrored.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    with_records(py, &files, &rows, max_pixels, |records| {
        let (kept, failures) = match out {
            Planes::Floats(mut out) => write_planes(py, records, &mut out, mirrored, &table, threads)?,
            Planes::Bytes(mut out) => {
                let same = std::array::from_fn(|byte| byte as u8);
                write_planes(py, records, &mut out, mirrored, &same, threads)?
            }
        };
        Ok((kept, failed(py, failures, skip)?))
    })
}

fn write_planes<T: Element + Copy + Send + Sync>(
    py: Python<'_>,
    records: &Records<'_>,
    out: &mut PyReadwriteArray4<'_, T>,
    mirrored: Option<&[bool]>,
    table: &[T; 256],
    threads: Option<usize>,
) -> PyResult<(usize, Vec<Failure>)> {
    let size = Size { height: out.shape()[2], width: out.shape()[3] };
    let out = out.as_slice_mut()?;
    run_briefly(py, records, threads, |interrupt| {
        let failures = batch::decode_by_table(records, size, mirrored, table, out, interrupt)?;
        Ok((batch::close_gaps(out, size, &failures), failures))
    })
}

/// Decodes images of any sizes: (H, W, 3) uint8 each, None for those that failed; and the failures.
#[pyfunction]
#[pyo3(signature = (files, rows, *, max_pixels, skip, threads))]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn decode_each<'py>(
    py: Python<'py>,
    files: Vec<Bound<'py, PyRecordFile>>,
    rows: Rows<'py>,
    max_pixels: usize,
    skip: bool,
    threads: Option<usize>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    with_records(py, &files, &rows, max_pixels, |records| {
        let (pictures, failures) =
            run_briefly(py, records, threads, |interrupt| batch::decode_each(records, interrupt))?;
        let images = PyList::empty(py);
        for picture in pictures {
            let image = picture.map(|(Size { height, width }, pixels)| {
                PyArray1::from_vec(py, pixels).reshape([height, width, 3])
            });
            images.append(image.transpose()?)?;
        }
        Ok((images, failed(py, failures, skip)?))
    })
}

/// The size of the first image, or with `usual` the most frequent one. None if no image can be read.
#[pyfunction]
#[pyo3(signature = (files, rows, *, max_pixels, usual, threads))]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn image_size<'py>(
    py: Python<'py>,
    files: Vec<Bound<'py, PyRecordFile>>,
    rows: Rows<'py>,
    max_pixels: usize,
    usual: bool,
    threads: Option<usize>,
) -> PyResult<Option<(usize, usize)>> {
    let size =
        with_records(py, &files, &rows, max_pixels, |records| size_of_batch(py, records, usual, threads))?;
    Ok(size.map(|size| (size.height, size.width)))
}

/// The record of the first row.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn read_row<'py>(
    py: Python<'py>,
    files: Vec<Bound<'py, PyRecordFile>>,
    rows: Rows<'py>,
) -> PyResult<PyRecord<'py>> {
    // Without the GIL, because reading may wait for a disk.
    let read = |records: &Records<'_>| py.detach(|| records.record(0)).map_err(|e| call::to_python(py, e));
    as_tuple(py, with_records(py, &files, &rows, usize::MAX, read)?) // decodes nothing
}

fn with_records<T>(
    py: Python<'_>,
    files: &[Bound<'_, PyRecordFile>],
    (keys, offsets, lengths, numbers, labels, keys_are_ids, kept): &Rows<'_>,
    max_pixels: usize,
    work: impl FnOnce(&Records<'_>) -> PyResult<T>,
) -> PyResult<T> {
    let files: Vec<&RecordFile> = files.iter().map(|file| &file.get().file).collect();
    let rows = RecordRows {
        keys: keys.as_slice()?,
        offsets: offsets.as_slice()?,
        lengths: lengths.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        numbers: numbers.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        labels: labels.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        keys_are_ids,
        kept,
    };
    work(&Records::new(&files, rows, max_pixels).map_err(|e| call::to_python(py, e))?)
}

fn size_of_batch(
    py: Python<'_>,
    source: &impl Source,
    usual: bool,
    threads: Option<usize>,
) -> PyResult<Option<Size>> {
    if usual {
        call::run(py, threads, |interrupt| batch::usual_size(source, interrupt))
    } else {
        py.detach(|| batch::first_size(source)).map_err(|e| call::to_python(py, e))
    }
}

fn decode<'py>(
    py: Python<'py>,
    source: &impl Source,
    size: Option<(usize, usize)>,
    skip: bool,
    planes: bool,
    threads: Option<usize>,
) -> PyResult<Decoded<'py>> {
    let size = match size {
        Some((height, width)) => Some(Size { height, width }),
        None => size_of_batch(py, source, skip, threads)?,
    };
    // If no image can be read, each still gets its own failure below.
    let Size { height, width } = size.unwrap_or(Size { height: 0, width: 0 });
    let count = source.count();
    let (pixels, kept, failures) = if planes {
        let isa = Isa::choose().map_err(|e| call::to_python(py, e))?;
        let shape = (count, 3, height, width);
        fill::<f32>(py, source, size, (shape, "float32"), threads, |size, out, interrupt| {
            batch::decode_planes(source, size, isa, out, interrupt)
        })?
    } else {
        let shape = (count, height, width, 3);
        fill::<u8>(py, source, size, (shape, "uint8"), threads, |size, out, interrupt| {
            batch::decode(source, size, out, interrupt)
        })?
    };
    Ok((pixels, kept, failed(py, failures, skip)?))
}

/// The index in the batch of each image that failed, and a `RecordError`; unless they may be skipped, the first of
/// the errors is raised.
fn failed(py: Python<'_>, failures: Vec<Failure>, skip: bool) -> PyResult<Bound<'_, PyList>> {
    let failed = PyList::empty(py);
    for failure in failures {
        let error = if skip { failure.error.of_one_record() } else { Err(failure.error) };
        let error = call::to_python(py, error.map_err(|e| call::to_python(py, e))?);
        failed.append((failure.row, error.into_value(py)))?;
    }
    Ok(failed)
}

/// Most images of a batch that one thread decodes without a look at Ctrl-C, in 50 ms if they are faces.
const BRIEF: usize = 256;

/// The same as [`run`], but one thread is this one, if the batch is small. In a worker of a data loader the cores are
/// busy, and a batch would wait for two new threads to be scheduled.
fn run_briefly<T: Send>(
    py: Python<'_>,
    source: &impl Source,
    threads: Option<usize>,
    work: impl FnOnce(&Interrupt) -> Result<T> + Send,
) -> PyResult<T> {
    if threads == Some(1) && source.count() <= BRIEF {
        return call::run_here(py, work);
    }
    run(py, source, threads, work)
}

/// Runs `work` on threads, or for a single image on this one: to start a thread takes longer than to decode it.
fn run<T: Send>(
    py: Python<'_>,
    source: &impl Source,
    threads: Option<usize>,
    work: impl FnOnce(&Interrupt) -> Result<T> + Send,
) -> PyResult<T> {
    if source.count() == 1 {
        return call::run_here(py, work);
    }
    call::run(py, threads, work)
}

/// A new array with the decoded images in front, their number, and the failures.
fn fill<'py, T: Element + Copy + Send>(
    py: Python<'py>,
    source: &impl Source,
    size: Option<Size>,
    array: ((usize, usize, usize, usize), &str),
    threads: Option<usize>,
    work: impl Fn(Size, &mut [T], &Interrupt) -> Result<Vec<Failure>> + Send + Sync,
) -> PyResult<(Bound<'py, PyAny>, usize, Vec<Failure>)> {
    let too_large =
        |size, available| call::to_python(py, batch::too_large(source, size, size_of::<T>(), available));
    if let Some(size) = size {
        let bytes = batch::bytes_of(source, size, size_of::<T>());
        if let Err(Error::Memory { available, .. }) = memory::ask(bytes, "") {
            return Err(too_large(size, available));
        }
    }
    // NumPy allocates, so that no page is written twice. A number of bytes above 2^63 is a ValueError of NumPy's.
    let pixels = py.import("numpy")?.call_method1("empty", array).map_err(|error| match size {
        Some(size)
            if error.is_instance_of::<PyMemoryError>(py) || error.is_instance_of::<PyValueError>(py) =>
        {
            too_large(size, None)
        }
        _ => error,
    })?;
    let pixels = pixels.cast_into::<PyArray4<T>>()?;
    let mut buffer = pixels.readwrite();
    let out = buffer.as_slice_mut()?;
    let (kept, failures) = run(py, source, threads, |interrupt| {
        let Some(size) = size else {
            return Ok((0, batch::unreadable(source, interrupt)?));
        };
        let failures = work(size, out, interrupt)?;
        Ok((batch::close_gaps(out, size, &failures), failures))
    })?;
    drop(buffer);
    Ok((pixels.into_any(), kept, failures))
}

/// `fasttriplet.assemble` after validation: into `out`, (B, 3, H, W) or with `channels_last` (B, H, W, 3).
/// `augment` is (mirror, cutoff, brightness, contrast, saturation), the seed and the ids.
#[pyfunction]
#[pyo3(signature = (pixels, rows, out, *, channels_last, augment=None))]
#[allow(clippy::needless_pass_by_value, clippy::type_complexity)] // the signature is Python's
fn assemble<'py>(
    py: Python<'py>,
    pixels: PyReadonlyArray4<'py, u8>,
    rows: PyReadonlyArray1<'py, i64>,
    mut out: PyReadwriteArray4<'py, f32>,
    channels_last: bool,
    augment: Option<((bool, usize, f64, f64, f64), u64, PyReadonlyArray1<'py, i64>)>,
) -> PyResult<()> {
    let shape = pixels.as_array().dim();
    let size = Size { height: shape.1, width: shape.2 };
    let chosen = Chosen { pixels: pixels.as_slice()?, size, rows: rows.as_slice()? };
    let changes = augment.as_ref().map(|((mirror, cutoff, brightness, contrast, saturation), ..)| {
        let jitter = Jitter { brightness: *brightness, contrast: *contrast, saturation: *saturation };
        Augment { mirror: *mirror, cutoff: *cutoff, jitter }
    });
    let augment = match (&changes, &augment) {
        (Some(changes), Some((_, seed, ids))) => Some((changes, *seed, ids.as_slice()?)),
        _ => None,
    };
    let order = if channels_last { Order::Pixels } else { Order::Planes };
    let values = out.as_slice_mut()?;
    py.detach(|| augment::assemble(&chosen, augment, Isa::choose()?, order, values))
        .map_err(|e| call::to_python(py, e))
}

/// What decoded images look like: brightness, contrast and detail (B, 3), and sketches (B, 63), float32.
#[pyfunction]
#[pyo3(signature = (pixels, *, threads))]
#[allow(clippy::needless_pass_by_value, clippy::type_complexity)] // the signature is Python's
fn looks_of<'py>(
    py: Python<'py>,
    pixels: PyReadonlyArray4<'py, u8>,
    threads: Option<usize>,
) -> PyResult<(Bound<'py, PyArray2<f32>>, Bound<'py, PyArray2<f32>>)> {
    let (count, height, width, _) = pixels.as_array().dim();
    let rgb = pixels.as_slice()?;
    let measures = PyArray2::<f32>::zeros(py, [count, MEASURES], false);
    let sketches = PyArray2::<f32>::zeros(py, [count, SKETCH], false);
    if count > 0 {
        let (mut measures, mut sketches) = (measures.readwrite(), sketches.readwrite());
        let (measures, sketches) = (measures.as_slice_mut()?, sketches.as_slice_mut()?);
        call::run(py, threads, |interrupt| {
            looks::look(rgb, Size { height, width }, measures, sketches, interrupt)
        })?;
    }
    Ok((measures, sketches))
}

/// How alike pairs of decoded images are: correlations (P,) float32, and (P, 3) int8 of how far the second is
/// shifted down and to the right, and whether it is mirrored.
#[pyfunction]
#[pyo3(signature = (pixels, first, second, *, threads))]
#[allow(clippy::needless_pass_by_value, clippy::type_complexity)] // the signature is Python's
fn compare_pictures<'py>(
    py: Python<'py>,
    pixels: PyReadonlyArray4<'py, u8>,
    first: PyReadonlyArray1<'py, i64>,
    second: PyReadonlyArray1<'py, i64>,
    threads: Option<usize>,
) -> PyResult<(Bound<'py, PyArray1<f32>>, Bound<'py, PyArray2<i8>>)> {
    let (_, height, width, _) = pixels.as_array().dim();
    let rgb = pixels.as_slice()?;
    let pairs: Vec<_> = first.as_slice()?.iter().copied().zip(second.as_slice()?.iter().copied()).collect();
    let found =
        call::run(py, threads, |interrupt| twins::compare(rgb, Size { height, width }, &pairs, interrupt))?;
    let correlations = found.iter().map(|one| one.correlation);
    let places: Vec<_> = found.iter().flat_map(|one| [one.down, one.right, i8::from(one.mirrored)]).collect();
    let places = PyArray1::from_vec(py, places).reshape([found.len(), 3])?;
    Ok((PyArray1::from_iter(py, correlations), places))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(decode_images, m)?)?;
    m.add_function(wrap_pyfunction!(decode_rows, m)?)?;
    m.add_function(wrap_pyfunction!(decode_into, m)?)?;
    m.add_function(wrap_pyfunction!(decode_each, m)?)?;
    m.add_function(wrap_pyfunction!(image_size, m)?)?;
    m.add_function(wrap_pyfunction!(read_row, m)?)?;
    m.add_function(wrap_pyfunction!(looks_of, m)?)?;
    m.add_function(wrap_pyfunction!(compare_pictures, m)?)?;
    m.add_function(wrap_pyfunction!(assemble, m)?)
}
