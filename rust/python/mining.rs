//! Bindings of [`crate::mining`].

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::call;
use crate::mining::{self, Band, Input, Metric, Options, Pairs, Pick, Rows};
use crate::{Isa, Result, memory};

/// What memory is needed for.
const ROWS: &str = "the rows";

/// Embeddings, labels and ids.
type Set<'py> = (PyReadonlyArray2<'py, f32>, PyReadonlyArray1<'py, i64>, Option<PyReadonlyArray1<'py, i64>>);

type Mined<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<f64>>,
    Bound<'py, PyArray1<f64>>,
    (u64, u64, u64, u64, u64),
    Option<f64>,
);

/// Name of the instruction set that a call would run on.
#[pyfunction]
fn instruction_set(py: Python<'_>) -> PyResult<&'static str> {
    Isa::choose().map(Isa::name).map_err(|e| call::to_python(py, e))
}

/// Names of all instruction sets of this machine.
#[pyfunction]
fn instruction_sets() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// `fasttriplet.mine` after validation.
#[pyfunction]
#[pyo3(signature = (anchors, references, *, band, pick, negatives_per_pair, pairs, metric, margin, max_ap, normalize, seed, threads))]
#[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // the signature is Python's
fn mine<'py>(
    py: Python<'py>,
    anchors: Set<'py>,
    references: Option<Set<'py>>,
    band: &str,
    pick: &str,
    negatives_per_pair: usize,
    pairs: &str,
    metric: &str,
    margin: f64,
    max_ap: Option<f64>,
    normalize: bool,
    seed: u64,
    threads: Option<usize>,
) -> PyResult<Mined<'py>> {
    let options = Options {
        band: named(
            "band",
            band,
            [
                ("semihard", Band::Semihard),
                ("violating", Band::Violating),
                ("hard", Band::Hard),
                ("any", Band::Any),
            ],
        )?,
        pick: named(
            "pick",
            pick,
            [("random", Pick::Random), ("hardest", Pick::Hardest), ("all", Pick::All)],
        )?,
        negatives_per_pair,
        pairs: named(
            "pairs",
            pairs,
            [
                ("unordered", Pairs::Unordered),
                ("ordered", Pairs::Ordered),
                ("hardest", Pairs::Hardest),
                ("easiest", Pairs::Easiest),
            ],
        )?,
        metric: named(
            "metric",
            metric,
            [
                ("sqeuclidean", Metric::SquaredEuclidean),
                ("euclidean", Metric::Euclidean),
                ("cosine", Metric::Cosine),
            ],
        )?,
        margin,
        max_ap,
        normalize,
        seed,
    };
    let input = Input {
        dim: anchors.0.shape()[1],
        anchors: rows(&anchors)?,
        references: references.as_ref().map(rows).transpose()?,
    };
    let found = if is_brief(&input, &options, threads).map_err(|e| call::to_python(py, e))? {
        let Input { dim, anchors, references } = input;
        let copies = copied(anchors).and_then(|copy| Ok((copy, references.map(copied).transpose()?)));
        let (anchors, references) = copies.map_err(|e| call::to_python(py, e))?;
        call::run_here_in_pool(py, move |interrupt| {
            let (anchors, references) = (as_rows(&anchors), references.as_ref().map(as_rows));
            mining::mine(&Input { dim, anchors, references }, &options, interrupt)
        })?
    } else {
        call::run(py, threads, |interrupt| mining::mine(&input, &options, interrupt))?
    };
    let stats = found.stats;
    Ok((
        found.anchor.into_pyarray(py),
        found.positive.into_pyarray(py),
        found.negative.into_pyarray(py),
        found.d_ap.into_pyarray(py),
        found.d_an.into_pyarray(py),
        (
            stats.pairs,
            stats.pairs_over_max_ap,
            stats.pairs_without_negative,
            stats.pairs_screened,
            stats.exact_distances,
        ),
        found.scatter,
    ))
}

fn rows<'a>((embeddings, labels, ids): &'a Set<'_>) -> PyResult<Rows<'a>> {
    Ok(Rows {
        embeddings: embeddings.as_slice()?,
        labels: labels.as_slice()?,
        ids: ids.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
    })
}

/// Embeddings, labels and ids of a call's own.
type Copied = (Vec<f32>, Vec<i64>, Option<Vec<i64>>);

fn copied(rows: Rows<'_>) -> Result<Copied> {
    let copy = |numbers: &[i64]| memory::collect(numbers.iter().copied(), ROWS);
    let embeddings = memory::collect(rows.embeddings.iter().copied(), ROWS)?;
    Ok((embeddings, copy(rows.labels)?, rows.ids.map(copy).transpose()?))
}

fn as_rows((embeddings, labels, ids): &Copied) -> Rows<'_> {
    Rows { embeddings, labels, ids: ids.as_deref() }
}

/// The most [`effort`] of a call that the calling thread makes alone; typical ones take up to 1 ms. Meanwhile nobody
/// looks at Ctrl-C: the longest that were found, with 400,000 triplets or equal rows, take 40 ms.
///
/// On two idle cores (AMD EPYC, AVX-512), two threads are faster from 0.8 ms on if the fastest calls are compared, and
/// from 2 ms on if the median ones are. Where the cores are busy, to wait for threads takes up to 4 ms.
const BRIEF: f64 = 5e7;

/// Whether a call takes less time than to start threads and to wait for them. Those that are asked for are started.
fn is_brief(input: &Input<'_>, options: &Options, threads: Option<usize>) -> Result<bool> {
    Ok(threads.is_none_or(|threads| threads == 1) && effort(input, options)? <= BRIEF)
}

/// About how long a call takes on one thread, in products of two numbers: 20 ps each. Fitted to calls with 32 to 1,024
/// rows and 16 to 512 columns, and to the longest ones, which test all candidates of a pair.
fn effort(input: &Input<'_>, options: &Options) -> Result<f64> {
    let candidates = input.references.unwrap_or(input.anchors).labels;
    let (n, m) = (input.anchors.labels.len() as f64, candidates.len() as f64);
    let products = (n * m + 64.0 * (n + m)) * (input.dim as f64 + 32.0);
    if products > BRIEF {
        return Ok(products); // enough is known, and there may be many labels
    }
    let pairs = match options.pairs {
        Pairs::Hardest | Pairs::Easiest => n,
        Pairs::Unordered | Pairs::Ordered => {
            let mut sorted = memory::collect(candidates.iter().copied(), ROWS)?;
            sorted.sort_unstable();
            let before = |label, or_equal| {
                sorted.partition_point(|&other| other < label || (or_equal && other == label)) as f64
            };
            input.anchors.labels.iter().map(|&label| before(label, true) - before(label, false)).sum()
        }
    };
    let most = m.min(options.negatives_per_pair as f64);
    let picks = if options.pick == Pick::All { 128.0 * m } else { 4.0 * most * most }; // the latter are kept sorted
    Ok(products + pairs * (16_384.0 + 64.0 * m + picks))
}

fn named<T: Copy, const N: usize>(option: &str, name: &str, known: [(&str, T); N]) -> PyResult<T> {
    known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let names = known.map(|(known, _)| format!("{known:?}")).join(", ");
        PyValueError::new_err(format!("{option} must be one of {names}, not {name:?}"))
    })
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(instruction_set, m)?)?;
    m.add_function(wrap_pyfunction!(instruction_sets, m)?)?;
    m.add_function(wrap_pyfunction!(mine, m)?)
}
