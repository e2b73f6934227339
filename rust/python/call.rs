//! How every long call crosses from Python into the core and back.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyType};

use crate::error::Location;
use crate::{Error, Interrupt, Result, memory};

/// How often a waiting call looks for Ctrl-C.
const SIGNAL_POLL: Duration = Duration::from_millis(50);

/// At most this many threads are started, whatever a caller asks for.
const MOST_THREADS: usize = 256;

thread_local! {
    static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Ends the long calls of other threads: Python delivers Ctrl-C to the main thread alone.
#[pyclass(frozen, name = "Stop", module = "fasttriplet._core")]
#[derive(Default)]
struct PyStop(Arc<AtomicBool>);

#[pymethods]
impl PyStop {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Ends the running and all later calls of the threads that heed this, with a `KeyboardInterrupt`.
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Makes the calling thread heed this `Stop`, and no other one.
    fn heed(&self) {
        STOP.set(Some(Arc::clone(&self.0)));
    }
}

/// Runs `work` on `threads` threads (`None`: one per core) without the GIL, and ends it on Ctrl-C.
///
/// The threads belong to this call alone: nothing global remains that a `fork` could break. To start two and to wait
/// for them takes 0.05 to 0.25 ms where the cores are idle, and milliseconds where they are not.
pub fn run<T, F>(py: Python<'_>, threads: Option<usize>, work: F) -> PyResult<T>
where
    T: Send,
    F: FnOnce(&Interrupt) -> Result<T> + Send,
{
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0).min(MOST_THREADS))
        .build()
        .map_err(|e| no_threads(threads, &e))?;
    let (interrupt, stopped) = begin();
    let mut result = None;
    let signal = py.detach(|| {
        let (done, wait) = channel::<()>();
        let (result, interrupt) = (&mut result, &interrupt);
        // This thread stays outside of the pool, and a panic goes on in it at the end of the scope.
        pool.in_place_scope(|scope| {
            scope.spawn(move |_| {
                let _done = done; // dropped at the end, also after a panic: that ends the wait below
                *result = Some(work(interrupt));
            });
            let mut signal = None;
            while let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(SIGNAL_POLL) {
                if stopped() {
                    interrupt.raise();
                }
                if signal.is_none() {
                    // The path of the method is not generic enough in its lifetime to replace the closure.
                    #[allow(clippy::redundant_closure_for_method_calls)]
                    let raised = Python::attach(|py| py.check_signals()).err();
                    if raised.is_some() {
                        interrupt.raise();
                    }
                    signal = raised;
                }
            }
            signal
        })
    });
    match (signal, result) {
        (Some(signal), _) => Err(signal),
        (None, Some(result)) => result.map_err(|e| to_python(py, e)),
        (None, None) => unreachable!("the scope ends after its work"),
    }
}

/// Runs `work` on the calling thread without the GIL, for what takes less time than to start a thread.
pub fn run_here<T: Send>(py: Python<'_>, work: impl FnOnce(&Interrupt) -> Result<T> + Send) -> PyResult<T> {
    let (interrupt, _) = begin();
    py.detach(|| work(&interrupt)).map_err(|e| to_python(py, e))
}

/// The same for work that needs a rayon pool: until `work` ends, the calling thread is the only one of a pool, which
/// takes 1 us. Without a pool, rayon would start one for the whole process, which a `fork` does not copy.
pub fn run_here_in_pool<T, F>(py: Python<'_>, work: F) -> PyResult<T>
where
    T: Send + 'static,
    F: FnOnce(&Interrupt) -> Result<T> + Send + 'static,
{
    let (interrupt, _) = begin();
    let mut only = None;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .spawn_handler(|thread| {
            only = Some(thread);
            Ok(())
        })
        .build()
        .map_err(|e| no_threads(Some(1), &e))?;
    let (done, wait) = channel();
    // Rayon ends the process if it meets a panic here.
    pool.spawn(move || drop(done.send(catch_unwind(AssertUnwindSafe(|| work(&interrupt))))));
    drop(pool); // its thread ends after the work
    py.detach(|| only.map(rayon::ThreadBuilder::run));
    match wait.recv() {
        Ok(Ok(result)) => result.map_err(|e| to_python(py, e)),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => unreachable!("the pool ends after its work"),
    }
}

/// What ends a call, and whether the `Stop` that this thread heeds is set: if so, the call has ended already.
fn begin() -> (Interrupt, impl Fn() -> bool + Sync) {
    let interrupt = Interrupt::new();
    let stop = STOP.with_borrow(Clone::clone);
    let stopped = move || stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
    if stopped() {
        interrupt.raise();
    }
    (interrupt, stopped)
}

fn no_threads(threads: Option<usize>, reason: &impl ToString) -> PyErr {
    let (wanted, fewer) = match threads {
        Some(1) => ("a thread".to_owned(), ""),
        Some(threads) => (format!("{threads} threads"), "give fewer, such as threads=1, or "),
        None => ("one thread per core".to_owned(), "give fewer, such as threads=1, or "),
    };
    let reason = reason.to_string();
    // A number would make the error one about the file that is being written meanwhile.
    let reason = reason.split(" (os error").next().unwrap_or_default();
    PyOSError::new_err(format!(
        "cannot start {wanted}: {reason}; {fewer}raise the limit on processes (ulimit -u), or on memory if there is \
         one (ulimit -v)"
    ))
}

/// The one mapping of the core's errors to Python's exceptions.
pub fn to_python(py: Python<'_>, error: Error) -> PyErr {
    match error {
        // OSError chooses FileNotFoundError, PermissionError, ... by the number.
        Error::Io { ref location, ref source } => match source.raw_os_error() {
            Some(number) => match strerror(py, number) {
                Ok(reason) => {
                    let file = location.file.as_ref().map(|file| file.as_os_str());
                    PyOSError::new_err((
                        number,
                        format!("{reason}{}", location.in_file()),
                        file.map(ToOwned::to_owned),
                    ))
                }
                Err(e) => e,
            },
            None => std::io::Error::new(source.kind(), error.to_string()).into(),
        },
        Error::Record { ref location, ref reason } => {
            record_error(py, &error.to_string(), location, reason).unwrap_or_else(|e| e)
        }
        Error::Value(message) => PyValueError::new_err(message),
        Error::Memory { .. } => PyMemoryError::new_err(error.to_string()),
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
    }
}

fn strerror(py: Python<'_>, number: i32) -> PyResult<String> {
    py.import("os")?.call_method1("strerror", (number,))?.extract()
}

fn record_error(py: Python<'_>, message: &str, location: &Location, reason: &str) -> PyResult<PyErr> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let file = location.file.as_ref().map(|file| file.as_os_str());
    let parts = [
        ("file", file.into_pyobject(py)?.into_any()),
        ("position", location.position.into_pyobject(py)?.into_any()),
        ("reason", reason.into_pyobject(py)?.into_any()),
    ];
    let class = CLASS.import(py, "fasttriplet.errors", "RecordError")?;
    let error = class.call((message, location.key, location.offset), Some(&parts.into_py_dict(py)?))?;
    Ok(PyErr::from_value(error))
}

/// Raises a `MemoryError` if so many bytes cannot be had: Polars ends the process where it cannot allocate.
#[pyfunction]
fn probe_memory(py: Python<'_>, bytes: u64, what: String) -> PyResult<()> {
    py.detach(|| memory::probe(bytes, what)).map_err(|e| to_python(py, e))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyStop>()?;
    m.add_function(wrap_pyfunction!(probe_memory, m)?)
}
