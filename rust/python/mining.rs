//! Bindings of [`crate::mining`].

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::call;
use crate::Isa;
use crate::mining::{self, Band, Input, Metric, Options, Pairs, Pick, Rows};

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
    let found = call::run(py, threads, |interrupt| mining::mine(&input, &options, interrupt))?;
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
