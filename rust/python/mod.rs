//! The Python extension `fasttriplet._core`: the only files that name `pyo3`.
//!
//! Each function here borrows buffers, releases the GIL, calls the core and maps the error.

use pyo3::prelude::*;

mod call;
mod image;
mod mining;
mod recordio;

/// The extension module.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    call::register(m)?;
    image::register(m)?;
    mining::register(m)?;
    recordio::register(m)?;
    Ok(())
}
