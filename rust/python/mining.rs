//! Bindings of [`crate::mining`].

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::call;
use crate::mining::{
    self, Band, Input, Limit, MOST_LIMITS, Metric, Options, Pairs, Pick, Ranks, Rows, Side, Stats, Triplets,
};
use crate::{Isa, Result, memory};

/// What memory is needed for.
const ROWS: &str = "the rows";

/// Embeddings, labels and ids.
type Set<'py> = (PyReadonlyArray2<'py, f32>, PyReadonlyArray1<'py, i64>, Option<PyReadonlyArray1<'py, i64>>);

/// Anchors, positives, negatives, `d_ap` and `d_an` of triplets or of a part, and the counts.
type Columns<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<f64>>,
    Bound<'py, PyArray1<f64>>,
    Counts,
);

type Counts = (u64, u64, u64, u64, u64);

/// The same, as Python gives it back.
type Part<'py> = (
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, f64>,
    PyReadonlyArray1<'py, f64>,
    Counts,
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

/// The options of mining, checked.
#[pyclass(frozen, name = "Options", module = "fasttriplet._core")]
struct PyOptions(Options);

#[pymethods]
impl PyOptions {
    /// `limits` are those of the band: the side of each, whether `d_an` may be at the edge, and `slope` and `offset`
    /// of the edge.
    #[new]
    #[pyo3(signature = (*, limits, ranks, pick, negatives_per_pair, fallback, pairs, positives_per_anchor, triplets_per_anchor, metric, max_ap, normalize, seed))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // the signature is Python's
    fn new(
        limits: Vec<(String, bool, f64, f64)>,
        ranks: (usize, Option<usize>),
        pick: &str,
        negatives_per_pair: usize,
        fallback: bool,
        pairs: &str,
        positives_per_anchor: Option<usize>,
        triplets_per_anchor: Option<usize>,
        metric: &str,
        max_ap: Option<f64>,
        normalize: bool,
        seed: u64,
    ) -> PyResult<Self> {
        let limits = limits
            .iter()
            .map(|(side, inclusive, slope, offset)| {
                let side = named("side", side, [("above", Side::Above), ("below", Side::Below)])?;
                Ok(Limit { side, inclusive: *inclusive, slope: *slope, offset: *offset })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let too_many = || PyValueError::new_err(format!("a band has at most {MOST_LIMITS} limits"));
        Ok(Self(Options {
            band: Band::of(&limits).ok_or_else(too_many)?,
            ranks: Ranks { first: ranks.0, end: ranks.1.unwrap_or(usize::MAX) },
            pick: named(
                "pick",
                pick,
                [
                    ("random", Pick::Random),
                    ("hardest", Pick::Hardest),
                    ("distance", Pick::Distance),
                    ("all", Pick::All),
                ],
            )?,
            negatives_per_pair,
            fallback,
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
            positives_per_anchor,
            triplets_per_anchor,
            metric: named(
                "metric",
                metric,
                [
                    ("sqeuclidean", Metric::SquaredEuclidean),
                    ("euclidean", Metric::Euclidean),
                    ("cosine", Metric::Cosine),
                ],
            )?,
            max_ap,
            normalize,
            seed,
        }))
    }
}

/// `fasttriplet.mine` after validation. `only` says which rows are anchors.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn mine<'py>(
    py: Python<'py>,
    anchors: Set<'py>,
    only: Option<PyReadonlyArray1<'py, bool>>,
    references: Option<Set<'py>>,
    options: &PyOptions,
    threads: Option<usize>,
) -> PyResult<(Columns<'py>, Option<f64>)> {
    let references = references.as_ref().map(rows).transpose()?;
    let only = only.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let input = Input { only, ..Input::new(anchors.0.shape()[1], rows(&anchors)?, references) };
    let options = options.0;
    let found = if is_brief(&input, &options, threads).map_err(|e| call::to_python(py, e))? {
        let only = input.only.map(<[bool]>::to_vec);
        let copies =
            copied(input.anchors).and_then(|copy| Ok((copy, input.references.map(copied).transpose()?)));
        let ((anchors, references), dim) = (copies.map_err(|e| call::to_python(py, e))?, input.dim);
        call::run_here_in_pool(py, move |interrupt| {
            let (anchors, references) = (as_rows(&anchors), references.as_ref().map(as_rows));
            let input = Input { only: only.as_deref(), ..Input::new(dim, anchors, references) };
            mining::mine(&input, &options, interrupt)
        })?
    } else {
        call::run(py, threads, |interrupt| mining::mine(&input, &options, interrupt))?
    };
    let scatter = found.scatter;
    Ok((columns(py, found), scatter))
}

/// What may be picked from a block of the negatives, or between two parts of the identities.
#[pyfunction]
#[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // the signature is Python's
fn collect<'py>(
    py: Python<'py>,
    anchors: Set<'py>,
    only: Option<PyReadonlyArray1<'py, bool>>,
    references: Option<Set<'py>>,
    block: Option<Set<'py>>,
    between: Option<i64>,
    options: &PyOptions,
    threads: Option<usize>,
) -> PyResult<Columns<'py>> {
    let input = Input {
        dim: anchors.0.shape()[1],
        anchors: rows(&anchors)?,
        only: only.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        references: references.as_ref().map(rows).transpose()?,
        block: block.as_ref().map(rows).transpose()?,
        between,
    };
    let found = call::run(py, threads, |interrupt| mining::collect(&input, &options.0, interrupt))?;
    Ok(columns(py, found))
}

/// The part of several blocks, of rows of `dim` columns.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn merge<'py>(
    py: Python<'py>,
    parts: Vec<Part<'py>>,
    options: &PyOptions,
    dim: usize,
    threads: Option<usize>,
) -> PyResult<Columns<'py>> {
    let parts = parts.iter().map(triplets).collect::<PyResult<Vec<_>>>()?;
    let merged = call::run(py, threads, |interrupt| mining::merge(&parts, &options.0, dim, interrupt))?;
    Ok(columns(py, merged))
}

/// What `mine` returns, from the part of all blocks.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn finish<'py>(
    py: Python<'py>,
    part: Part<'py>,
    options: &PyOptions,
    dim: usize,
    threads: Option<usize>,
) -> PyResult<Columns<'py>> {
    let part = triplets(&part)?;
    let finished = call::run(py, threads, |interrupt| mining::finish(&part, &options.0, dim, interrupt))?;
    Ok(columns(py, finished))
}

fn columns(py: Python<'_>, found: Triplets) -> Columns<'_> {
    let stats = found.stats;
    (
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
    )
}

fn triplets((anchor, positive, negative, d_ap, d_an, counts): &Part<'_>) -> PyResult<Triplets> {
    let (pairs, pairs_over_max_ap, pairs_without_negative, pairs_screened, exact_distances) = *counts;
    let part = Triplets {
        anchor: anchor.as_slice()?.to_vec(),
        positive: positive.as_slice()?.to_vec(),
        negative: negative.as_slice()?.to_vec(),
        d_ap: d_ap.as_slice()?.to_vec(),
        d_an: d_an.as_slice()?.to_vec(),
        stats: Stats { pairs, pairs_over_max_ap, pairs_without_negative, pairs_screened, exact_distances },
        scatter: None,
    };
    let lengths = [part.positive.len(), part.negative.len(), part.d_ap.len(), part.d_an.len()];
    if lengths.iter().any(|&length| length != part.anchor.len()) {
        return Err(PyValueError::new_err("the columns of a part must be equally long"));
    }
    Ok(part)
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
    let kept = match options.ranks {
        Ranks { first, end: usize::MAX } => first.saturating_add(options.negatives_per_pair),
        Ranks { end, .. } => end,
    };
    let most = m.min(kept as f64);
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
    m.add_class::<PyOptions>()?;
    m.add_function(wrap_pyfunction!(mine, m)?)?;
    m.add_function(wrap_pyfunction!(collect, m)?)?;
    m.add_function(wrap_pyfunction!(merge, m)?)?;
    m.add_function(wrap_pyfunction!(finish, m)?)
}
