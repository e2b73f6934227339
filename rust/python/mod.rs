//! The Python extension `fasttriplet._core`: the only files that name `pyo3`.
//!
//! Each function here borrows buffers, releases the GIL, calls the core and maps the error.

use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;

mod call;
mod image;
mod mining;
mod recordio;

/// Does all that a process does once, under locks: the functions of `NumPy` are looked up, `rayon` prepares for
/// its first pool, and the panic hook is installed. A fork while another thread did it would copy a lock that
/// is never opened. `_forks.py` calls this where no fork comes in between.
#[pyfunction]
fn warm_up(py: Python<'_>) -> PyResult<()> {
    PyArray1::<u8>::zeros(py, 1, false).try_readonly()?;
    // Without threads, the first call that needs them will say so.
    if let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        pool.install(crate::image::quieten);
    }
    Ok(())
}

/// The extension module.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_function(wrap_pyfunction!(warm_up, m)?)?;
    call::register(m)?;
    image::register(m)?;
    mining::register(m)?;
    recordio::register(m)?;
    Ok(())
}
