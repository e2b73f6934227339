//! Bindings of [`crate::image`].

use numpy::{PyArray4, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyList;

use super::call;
use super::recordio::PyRecordFile;
use crate::image::Size;
use crate::image::batch::{self, Encoded, Records, Source};
use crate::recordio::RecordFile;

/// Pixels (B, H, W, 3), how many of the B images are good (they come first), and the row and
/// `RecordError` of each that is not.
type Decoded<'py> = (Bound<'py, PyArray4<u8>>, usize, Bound<'py, PyList>);

/// `fasttriplet.decode_images` after validation.
#[pyfunction]
#[pyo3(signature = (encoded, *, size, skip, threads))]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn decode_images(
    py: Python<'_>,
    encoded: Vec<PyBackedBytes>,
    size: Option<(usize, usize)>,
    skip: bool,
    threads: Option<usize>,
) -> PyResult<Decoded<'_>> {
    let slices: Vec<&[u8]> = encoded.iter().map(|bytes| &**bytes).collect();
    decode(py, &Encoded(&slices), size, skip, threads)
}

/// `fasttriplet.decode_rows` after validation.
#[pyfunction]
#[pyo3(signature = (files, keys, offsets, numbers, *, size, skip, threads))]
#[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // the signature is Python's
fn decode_rows<'py>(
    py: Python<'py>,
    files: Vec<Bound<'py, PyRecordFile>>,
    keys: PyReadonlyArray1<'py, i64>,
    offsets: PyReadonlyArray1<'py, i64>,
    numbers: Option<PyReadonlyArray1<'py, u32>>,
    size: Option<(usize, usize)>,
    skip: bool,
    threads: Option<usize>,
) -> PyResult<Decoded<'py>> {
    let files: Vec<&RecordFile> = files.iter().map(|file| &file.get().file).collect();
    let numbers = numbers.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let records = Records::new(&files, keys.as_slice()?, offsets.as_slice()?, numbers)
        .map_err(|e| call::to_python(py, e))?;
    decode(py, &records, size, skip, threads)
}

fn decode<'py>(
    py: Python<'py>,
    source: &impl Source,
    size: Option<(usize, usize)>,
    skip: bool,
    threads: Option<usize>,
) -> PyResult<Decoded<'py>> {
    let size = match size {
        Some((height, width)) => Some(Size { height, width }),
        None if skip => call::run(py, threads, |interrupt| batch::usual_size(source, interrupt))?,
        None => py.detach(|| batch::first_size(source)).map_err(|e| call::to_python(py, e))?,
    };
    // Where nothing can be read, each image still gets its own failure below.
    let shown = size.unwrap_or(Size { height: 0, width: 0 });
    let shape = (source.count(), shown.height, shown.width, 3);
    // NumPy's own allocation: too little memory is a MemoryError, and no page is touched twice.
    let pixels = py.import("numpy")?.call_method1("empty", (shape, "uint8"))?;
    let pixels = pixels.cast_into::<PyArray4<u8>>()?;
    let mut buffer = pixels.readwrite();
    let out = buffer.as_slice_mut()?;
    let (kept, failures) = call::run(py, threads, |interrupt| {
        let Some(size) = size else {
            return Ok((0, batch::unreadable(source)));
        };
        let failures = batch::decode(source, size, out, interrupt)?;
        Ok((batch::close_gaps(out, size, &failures), failures))
    })?;
    drop(buffer);
    let failed = PyList::empty(py);
    for failure in failures {
        let error = call::to_python(py, failure.error);
        if !skip {
            return Err(error);
        }
        failed.append((failure.row, error.into_value(py)))?;
    }
    Ok((pixels, kept, failed))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(decode_images, m)?)?;
    m.add_function(wrap_pyfunction!(decode_rows, m)?)
}
