//! `peakhold._peakhold.WindowSnapshot`, and reports as Python lists.

use super::journal::OfWindow;
use super::names;
use crate::{ClassStatistics, Closed, Snapshot, Statistics, UNITS, WindowJournal, memory};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a closed window held, to be merged, encoded or reported.
///
/// The window is emptied when that is first asked for: whoever closes it, a frame loop, has only to swap it.
#[pyclass(frozen, module = "peakhold._peakhold")]
pub(super) struct WindowSnapshot {
    closed: Mutex<Option<Closed>>,
    /// None if that failed, and what was in it is lost.
    emptied: OnceLock<Option<Snapshot>>,
    /// Classes it held when it was closed, for as long as it was not emptied.
    peaks: usize,
    /// What the window rejected, by the names of reasons, if it has statistics.
    rejected: BTreeMap<String, u64>,
    has_statistics: bool,
    journal: Option<Arc<WindowJournal>>,
}

impl WindowSnapshot {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        let peaks = snapshot.len();
        let has_statistics = !snapshot.parts().is_empty();
        let emptied = OnceLock::from(Some(snapshot));
        Self { closed: Mutex::default(), peaks, emptied, rejected: BTreeMap::new(), has_statistics, journal: None }
    }

    pub(super) fn closed(closed: Closed, rejected: BTreeMap<String, u64>) -> Self {
        let peaks = usize::try_from(closed.peaks()).unwrap_or(usize::MAX);
        let journal = closed.journal();
        let has_statistics = closed.has_statistics();
        let closed = Mutex::new(Some(closed));
        Self { closed, emptied: OnceLock::new(), peaks, rejected, has_statistics, journal }
    }

    /// What the window held, which whoever asks first takes out of it.
    fn get(&self, py: Python<'_>) -> PyResult<&Snapshot> {
        let empty = || {
            // Taking leaves the mutex in order, even if another thread has panicked with it.
            let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
            closed.map(|closed| {
                let mut snapshot = closed.empty();
                for statistics in snapshot.parts_mut().values_mut() {
                    statistics.rejected.clone_from(&self.rejected);
                }
                snapshot
            })
        };
        let emptied = match self.emptied.get() {
            Some(emptied) => emptied,
            // Who waits for another thread must not keep that from the interpreter.
            None => detached_if_large(py, self.peaks, || self.emptied.get_or_init(empty)),
        };
        emptied.as_ref().ok_or_else(|| {
            PyRuntimeError::new_err("emptying the closed window failed before: read its journal, if it has one")
        })
    }
}

impl Drop for WindowSnapshot {
    fn drop(&mut self) {
        // Giving back what a large window took lasts some milliseconds, which others need not wait for.
        if self.peaks >= LARGE {
            let (closed, emptied) = (std::mem::take(&mut self.closed), self.emptied.take());
            let closed = closed.into_inner().unwrap_or_else(PoisonError::into_inner);
            // An emptied one sees to it that the memory goes back to the system.
            Python::attach(|py| py.detach(|| drop((closed.map(Closed::empty), emptied))));
        }
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

    /// Whether all that the window held is in its journal.
    #[getter]
    fn is_written(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| {
            let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
            journal.error().is_none() && closed.as_ref().map_or_else(|| journal.is_complete(), Closed::is_complete)
        })
    }

    /// Return one whose statistics are those of one window; without a journal.
    fn with_one_part(&self, py: Python<'_>) -> PyResult<Self> {
        Ok(Self::new(self.get(py)?.clone().with_one_part()))
    }

    /// Return one with the journal and the statistics of this one, and nothing else.
    fn without_peaks(&self, py: Python<'_>) -> PyResult<Self> {
        let snapshot = if self.has_statistics { self.get(py)?.without_peaks() } else { Snapshot::default() };
        let mut others = Self::new(snapshot);
        others.journal.clone_from(&self.journal);
        Ok(others)
    }

    /// Whether nothing happened in it, as far as it says.
    #[getter]
    fn is_empty(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.peaks == 0 && (!self.has_statistics || self.get(py)?.statistics().is_empty()))
    }

    /// Whether it has statistics.
    #[getter]
    const fn has_statistics(&self) -> bool {
        self.has_statistics
    }

    /// Return the statistics of each window that is in it, by part ids.
    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let parts = PyDict::new(py);
        for (id, part) in self.get(py)?.parts() {
            parts.set_item(id.to_string(), statistics(py, part)?)?;
        }
        Ok(parts)
    }

    /// Return the statistics of all windows that are in it, added up; None if it has none.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let snapshot = self.get(py)?;
        (!snapshot.parts().is_empty()).then(|| statistics(py, &snapshot.statistics())).transpose()
    }

    /// Return the snapshot as bytes.
    fn encode<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let snapshot = self.get(py)?;
        let encoded = detached_if_large(py, snapshot.len(), || snapshot.encode());
        Ok(PyBytes::new(py, &encoded))
    }

    /// Return both windows as one; commutative, associative and idempotent.
    #[pyo3(signature = (other, /))]
    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<Self> {
        let (one, other) = (self.get(py)?, other.get(py)?);
        let merge = || {
            let mut snapshot = one.clone();
            snapshot.merge(other.clone());
            Self::new(snapshot)
        };
        Ok(detached_if_large(py, one.len() + other.len(), merge))
    }

    /// Return one line per class, in the order of `PeakAggregator.drain`.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        report(py, self.get(py)?)
    }

    /// Return the number of lines in `report`.
    #[getter]
    fn lines(&self, py: Python<'_>) -> PyResult<usize> {
        let snapshot = self.get(py)?;
        Ok(detached_if_large(py, snapshot.len(), || snapshot.lines()))
    }

    /// Return the lines of `report` from `first` to before `last` as JSON.
    #[pyo3(signature = (first, last, /))]
    fn report_json<'py>(&self, py: Python<'py>, first: usize, last: usize) -> PyResult<Bound<'py, PyBytes>> {
        let snapshot = self.get(py)?;
        let json = detached_if_large(py, snapshot.len(), || snapshot.report_json(first..last));
        Ok(PyBytes::new(py, &json))
    }

    /// Return what a monitor gets of the lines of `report` from `first` to before `last`, as members of a JSON object.
    #[pyo3(signature = (first, last, /))]
    fn window_json<'py>(&self, py: Python<'py>, first: usize, last: usize) -> PyResult<Bound<'py, PyBytes>> {
        let snapshot = self.get(py)?;
        let json = detached_if_large(py, snapshot.len(), || snapshot.window_json(first..last));
        Ok(PyBytes::new(py, &json))
    }

    /// Return where `report` is to be divided so that each part takes at most `limit` bytes as JSON.
    #[pyo3(signature = (limit, /))]
    fn report_parts(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<usize>> {
        let snapshot = self.get(py)?;
        Ok(detached_if_large(py, snapshot.len(), || snapshot.report_parts(limit)))
    }

    /// The file of the closed window's record highs; None if it has none.
    #[getter]
    fn journal(&self) -> Option<OfWindow> {
        self.journal.clone().map(OfWindow)
    }

    /// Memory it takes, in bytes: an estimate.
    #[getter]
    fn nbytes(&self) -> usize {
        self.emptied
            .get()
            .and_then(Option::as_ref)
            .map_or_else(|| Snapshot::bytes_expected(self.peaks), Snapshot::bytes)
    }

    /// Classes held, counted per model.
    #[getter]
    fn peaks(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.get(py)?.len())
    }
}

/// Peaks from which on work on them takes longer than it may take to get the interpreter back.
const LARGE: usize = 1_000;

/// Does what takes long for many peaks without holding the interpreter.
///
/// For few it takes less time than it may take to get the interpreter back.
pub(super) fn detached_if_large<T: Send>(py: Python<'_>, peaks: usize, work: impl FnOnce() -> T + Send) -> T {
    if peaks < LARGE {
        return work();
    }
    py.detach(|| {
        let made = work();
        if peaks >= memory::LARGE {
            memory::release();
        }
        made
    })
}

/// The report of a snapshot as a list of dicts, with the statistics of each class if the snapshot has any.
pub(super) fn report<'py>(py: Python<'py>, snapshot: &Snapshot) -> PyResult<Bound<'py, PyList>> {
    let mut classes: HashMap<&str, ClassStatistics> = HashMap::new();
    for (class_name, class) in snapshot.parts().values().flat_map(|part| part.models.values().flatten()) {
        classes.entry(class_name).or_default().add(class);
    }
    let has_statistics = !snapshot.parts().is_empty();
    let lines = detached_if_large(py, snapshot.len(), || snapshot.report()).into_iter().map(|line| {
        let dict = PyDict::new(py);
        dict.set_item(names::model_id(py), line.model_id)?;
        dict.set_item(names::class_name(py), line.class_name)?;
        dict.set_item(names::confidence(py), line.peak.confidence)?;
        dict.set_item(names::inference_id(py), &line.peak.inference_id)?;
        dict.set_item(names::model_type(py), &line.peak.prediction_type)?;
        if has_statistics {
            set_class(&dict, &classes.remove(line.class_name).unwrap_or_default())?;
        }
        Ok(dict)
    });
    PyList::new(py, lines.collect::<PyResult<Vec<_>>>()?)
}

/// Statistics as a dict.
pub(super) fn statistics<'py>(py: Python<'py>, statistics: &Statistics) -> PyResult<Bound<'py, PyDict>> {
    let models = PyDict::new(py);
    for (model_id, classes) in &statistics.models {
        let by_class = PyDict::new(py);
        for (class_name, class) in classes {
            let dict = PyDict::new(py);
            set_class(&dict, class)?;
            by_class.set_item(class_name, dict)?;
        }
        models.set_item(model_id, by_class)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("frames", statistics.frames)?;
    dict.set_item("is_partial", statistics.is_partial)?;
    dict.set_item("without", statistics.without)?;
    dict.set_item("rejected", &statistics.rejected)?;
    dict.set_item("models", models)?;
    Ok(dict)
}

fn set_class(dict: &Bound<'_, PyDict>, class: &ClassStatistics) -> PyResult<()> {
    #[allow(clippy::cast_precision_loss, reason = "as exact as a float can be")]
    let sum = class.sum as f64 / UNITS;
    dict.set_item("frames", class.frames)?;
    dict.set_item("detections", class.detections)?;
    dict.set_item("out_of_range", class.outside)?;
    dict.set_item("confidence_sum", sum)?;
    dict.set_item("confidence_min", class.least)?;
    dict.set_item("histogram", class.histogram)
}
