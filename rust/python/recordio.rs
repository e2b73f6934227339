//! `_core.RecordFile`, `_core.KeyTable`, `_core.scan` and `_core.RecordWriter`.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::call;
use crate::recordio::window::ReadAt;
use crate::recordio::{self, Header, KeyTable, Record, RecordFile, RecordWriter};

type Array<'py, T> = Bound<'py, PyArray1<T>>;

/// A record in Python: flag, label or labels, id, id2, content.
pub type PyRecord<'py> = (u32, Py<PyAny>, u64, u64, Bound<'py, PyBytes>);

/// A `.rec` file, read by offset. `file` is for the other bindings.
#[pyclass(frozen, name = "RecordFile", module = "fasttriplet._core")]
pub struct PyRecordFile {
    pub file: RecordFile,
}

#[pymethods]
impl PyRecordFile {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let file = py.detach(move || RecordFile::open(&path)).map_err(|e| call::to_python(py, e))?;
        Ok(Self { file })
    }

    /// Bytes of the file when it was opened.
    #[getter]
    fn size(&self) -> u64 {
        self.file.size()
    }

    /// The open file, for `os.fstat`.
    fn fileno(&self) -> i32 {
        self.file.file().as_raw_fd()
    }

    /// The record at `offset`. `key` is only for errors.
    #[pyo3(signature = (offset, key=None))]
    fn record_at<'py>(&self, py: Python<'py>, offset: u64, key: Option<i64>) -> PyResult<PyRecord<'py>> {
        // Without the GIL, because reading may wait for a disk.
        let record = py.detach(|| self.file.record_at(offset));
        let record = record.map_err(|e| match key {
            Some(key) => call::to_python(py, e.with_key(key)),
            None => call::to_python(py, e),
        })?;
        as_tuple(py, record)
    }
}

pub fn as_tuple(py: Python<'_>, record: Record) -> PyResult<PyRecord<'_>> {
    let Record { header, content, .. } = record;
    let label = if header.flag == 0 {
        header.label.into_pyobject(py)?.into_any().unbind()
    } else {
        PyArray1::from_vec(py, header.labels).into_any().unbind()
    };
    Ok((header.flag, label, header.id, header.id2, PyBytes::new(py, &content)))
}

/// Byte offsets by key.
#[pyclass(frozen, name = "KeyTable", module = "fasttriplet._core")]
struct PyKeyTable {
    table: KeyTable,
}

#[pymethods]
impl PyKeyTable {
    #[new]
    #[pyo3(signature = (file, idx, *, complete))]
    fn new(
        py: Python<'_>,
        file: &Bound<'_, PyRecordFile>,
        idx: Option<PathBuf>,
        complete: bool,
    ) -> PyResult<Self> {
        let file = &file.get().file;
        let table =
            call::run(py, None, move |interrupt| KeyTable::load(file, idx.as_deref(), complete, interrupt))?;
        Ok(Self { table })
    }

    /// The keys, in file order.
    fn keys<'py>(&self, py: Python<'py>) -> Array<'py, i64> {
        PyArray1::from_slice(py, self.table.keys())
    }

    /// What was found wrong and worked around, one line per finding.
    #[getter]
    fn problems(&self) -> Vec<String> {
        self.table.problems().to_vec()
    }

    fn __len__(&self) -> usize {
        self.table.keys().len()
    }

    /// The byte offset of one key's record.
    fn offset(&self, key: i64) -> Option<u64> {
        self.table.offset_of(key)
    }

    /// The byte offsets of many keys' records, -1 for unknown keys.
    #[expect(clippy::needless_pass_by_value, reason = "how numpy arrays are borrowed")]
    fn offsets<'py>(&self, py: Python<'py>, keys: PyReadonlyArray1<'py, i64>) -> PyResult<Array<'py, i64>> {
        let keys = keys.as_slice()?;
        let offsets = py.detach(|| {
            keys.iter()
                .map(|key| self.table.offset_of(*key).map_or(-1, |offset| offset as i64))
                .collect::<Vec<_>>()
        });
        Ok(PyArray1::from_vec(py, offsets))
    }
}

/// What `scan` returns, one array per column.
#[pyclass(frozen, get_all, name = "Scan", module = "fasttriplet._core")]
struct PyScan {
    keys: Py<PyArray1<i64>>,
    labels: Py<PyArray1<i64>>,
    offsets: Py<PyArray1<i64>>,
    lengths: Py<PyArray1<i64>>,
    bare_keys: Py<PyArray1<i64>>,
    bare_offsets: Py<PyArray1<i64>>,
    bare_flags: Py<PyArray1<u32>>,
    bare_first: Py<PyArray1<f32>>,
    bare_second: Py<PyArray1<f32>>,
    flags: BTreeMap<u32, u64>,
    objects: u64,
    problems: Vec<String>,
    rebuilt: bool,
    keys_are_ids: bool,
}

/// Reads all headers of a file.
#[pyfunction]
#[pyo3(signature = (file, idx=None, threads=None))]
fn scan(
    py: Python<'_>,
    file: &Bound<'_, PyRecordFile>,
    idx: Option<PathBuf>,
    threads: Option<usize>,
) -> PyResult<PyScan> {
    let file = &file.get().file;
    let scan = call::run(py, threads, move |interrupt| recordio::scan(file, idx.as_deref(), interrupt))?;
    let signed = |values: Vec<u64>| -> Py<PyArray1<i64>> {
        // The size of a file, and so each offset and length, fits an i64. Converted in place.
        PyArray1::from_vec(py, values.into_iter().map(|value| value as i64).collect()).unbind()
    };
    let bare = &scan.bare;
    Ok(PyScan {
        keys: PyArray1::from_vec(py, scan.keys).unbind(),
        labels: PyArray1::from_vec(py, scan.labels).unbind(),
        offsets: signed(scan.offsets),
        lengths: signed(scan.lengths),
        bare_keys: PyArray1::from_iter(py, bare.iter().map(|b| b.key)).unbind(),
        bare_offsets: PyArray1::from_iter(py, bare.iter().map(|b| b.offset as i64)).unbind(),
        bare_flags: PyArray1::from_iter(py, bare.iter().map(|b| b.flag)).unbind(),
        bare_first: PyArray1::from_iter(py, bare.iter().map(|b| b.labels[0])).unbind(),
        bare_second: PyArray1::from_iter(py, bare.iter().map(|b| b.labels[1])).unbind(),
        flags: scan.flags,
        objects: scan.objects,
        problems: scan.problems,
        rebuilt: scan.rebuilt,
        keys_are_ids: scan.keys_are_ids,
    })
}

/// Writes a `.rec` and its `.idx`. `None` after it was finished or discarded.
#[pyclass(frozen, name = "RecordWriter", module = "fasttriplet._core")]
struct PyRecordWriter {
    writer: Mutex<Option<RecordWriter>>,
}

impl PyRecordWriter {
    fn with<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Option<RecordWriter>) -> PyResult<T> + Send,
    ) -> PyResult<T>
    where
        T: Send,
    {
        py.detach(|| work(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[pymethods]
impl PyRecordWriter {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let writer = py.detach(move || RecordWriter::create(&path)).map_err(|e| call::to_python(py, e))?;
        Ok(Self { writer: Mutex::new(Some(writer)) })
    }

    /// Appends a record with `labels`, or `label` where there are none.
    #[expect(clippy::too_many_arguments, reason = "the fields of a record")]
    fn write(
        &self,
        py: Python<'_>,
        key: i64,
        label: f32,
        labels: Vec<f32>,
        id: u64,
        id2: u64,
        payload: &[u8],
    ) -> PyResult<()> {
        let header = Header { flag: 0, label, id, id2, labels };
        self.with(py, |writer| match writer {
            None => Err(PyValueError::new_err("the RecordWriter is closed")),
            Some(writer) => {
                writer.write(key, &header, payload).map_err(|e| Python::attach(|py| call::to_python(py, e)))
            }
        })
    }

    /// Gives the files their names.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |writer| match writer.take() {
            None => Ok(()),
            Some(writer) => writer.finish().map_err(|e| Python::attach(|py| call::to_python(py, e))),
        })
    }

    /// Removes what was written.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |writer| {
            drop(writer.take());
            Ok(())
        })
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyRecordFile>()?;
    m.add_class::<PyKeyTable>()?;
    m.add_class::<PyScan>()?;
    m.add_class::<PyRecordWriter>()?;
    m.add_function(wrap_pyfunction!(scan, m)?)
}
