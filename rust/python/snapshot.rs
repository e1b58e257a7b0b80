//! `peakhold._peakhold.WindowSnapshot`, and reports as Python lists.

use crate::Snapshot;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

/// What a closed window held, to be merged, encoded or reported.
#[pyclass(frozen, module = "peakhold._peakhold")]
pub(super) struct WindowSnapshot {
    snapshot: Snapshot,
}

impl WindowSnapshot {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }
}

#[pymethods]
impl WindowSnapshot {
    /// Read what `encode` has written.
    #[staticmethod]
    #[pyo3(signature = (encoded, /))]
    fn decode(encoded: &[u8]) -> PyResult<Self> {
        Snapshot::decode(encoded).map(Self::new).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Return the snapshot as bytes.
    fn encode<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let encoded = detached_if_large(py, self.snapshot.len(), || self.snapshot.encode());
        PyBytes::new(py, &encoded)
    }

    /// Return both windows as one; commutative, associative and idempotent.
    #[pyo3(signature = (other, /))]
    fn merge(&self, py: Python<'_>, other: &Self) -> Self {
        let merge = || {
            let mut snapshot = self.snapshot.clone();
            snapshot.merge(other.snapshot.clone());
            Self { snapshot }
        };
        detached_if_large(py, self.snapshot.len() + other.snapshot.len(), merge)
    }

    /// Return one line per class, in the order of `PeakAggregator.drain`.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        report(py, &self.snapshot)
    }

    /// Memory it takes, in bytes: its texts, and an estimate for the rest.
    #[getter]
    fn nbytes(&self) -> usize {
        self.snapshot.bytes()
    }

    /// Classes held, counted per model.
    #[getter]
    fn peaks(&self) -> usize {
        self.snapshot.len()
    }
}

/// Does what takes long for many peaks without holding the interpreter.
///
/// For few it takes less time than it may take to get the interpreter back.
pub(super) fn detached_if_large<T: Send>(py: Python<'_>, peaks: usize, work: impl FnOnce() -> T + Send) -> T {
    const LARGE: usize = 1_000;
    if peaks < LARGE { work() } else { py.detach(work) }
}

/// The report of a snapshot as a list of dicts.
pub(super) fn report<'py>(py: Python<'py>, snapshot: &Snapshot) -> PyResult<Bound<'py, PyList>> {
    let lines = detached_if_large(py, snapshot.len(), || snapshot.report()).into_iter().map(|line| {
        let dict = PyDict::new(py);
        dict.set_item(intern!(py, "model_id"), line.model_id)?;
        dict.set_item(intern!(py, "class_name"), line.class_name)?;
        dict.set_item(intern!(py, "confidence"), line.peak.confidence)?;
        dict.set_item(intern!(py, "inference_id"), &line.peak.inference_id)?;
        dict.set_item(intern!(py, "model_type"), &line.peak.prediction_type)?;
        Ok(dict)
    });
    PyList::new(py, lines.collect::<PyResult<Vec<_>>>()?)
}
