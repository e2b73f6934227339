//! `_core.RecordFile`: records of a `.rec` file by position.

use std::path::PathBuf;

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::call;
use crate::recordio::RecordFile;

/// What a record is in Python: flag, label or labels, id, id2, content.
type PyRecord<'py> = (u32, Py<PyAny>, u64, u64, Bound<'py, PyBytes>);

/// A `.rec` file, read by position; `file` is for the other bindings.
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

    /// The record at `offset`; `key` only names it in errors.
    #[pyo3(signature = (offset, key=None))]
    fn record_at<'py>(&self, py: Python<'py>, offset: u64, key: Option<i64>) -> PyResult<PyRecord<'py>> {
        let record = self.file.record_at(offset).map_err(|e| match key {
            Some(key) => call::to_python(py, e.with_key(key)),
            None => call::to_python(py, e),
        })?;
        let header = record.header;
        let label = if header.flag == 0 {
            header.label.into_pyobject(py)?.into_any().unbind()
        } else {
            PyArray1::from_vec(py, header.labels).into_any().unbind()
        };
        Ok((header.flag, label, header.id, header.id2, PyBytes::new(py, &record.payload)))
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyRecordFile>()
}
