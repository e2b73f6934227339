//! Bindings of [`crate::mining`].

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::call;
use crate::Isa;
use crate::mining::{
    self, Band, Input, Limit, MOST_LIMITS, Metric, Options, Pairs, Pick, Ranks, Rows, Side, Stats, Triplets,
};

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
    let found = call::run(py, threads, |interrupt| mining::mine(&input, &options.0, interrupt))?;
    let scatter = found.scatter;
    Ok((columns(py, found), scatter))
}

/// What may be picked from a block of the negatives.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // the signature is Python's
fn collect<'py>(
    py: Python<'py>,
    anchors: Set<'py>,
    only: Option<PyReadonlyArray1<'py, bool>>,
    references: Option<Set<'py>>,
    block: Set<'py>,
    options: &PyOptions,
    threads: Option<usize>,
) -> PyResult<Columns<'py>> {
    let input = Input {
        dim: anchors.0.shape()[1],
        anchors: rows(&anchors)?,
        only: only.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        references: references.as_ref().map(rows).transpose()?,
        block: Some(rows(&block)?),
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
    let merged = call::run(py, threads, |_| mining::merge(&parts, &options.0, dim))?;
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
    let finished = call::run(py, threads, |_| mining::finish(&part, &options.0, dim))?;
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
