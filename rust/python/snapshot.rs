//! `peakhold._peakhold.WindowSnapshot`, and reports as Python lists.

use super::journal::OfWindow;
use super::names;
use crate::{Closed, Snapshot, WindowJournal, memory};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
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
    journal: Option<Arc<WindowJournal>>,
}

impl WindowSnapshot {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self { closed: Mutex::default(), peaks: snapshot.len(), emptied: OnceLock::from(Some(snapshot)), journal: None }
    }

    pub(super) fn closed(closed: Closed) -> Self {
        let peaks = usize::try_from(closed.peaks()).unwrap_or(usize::MAX);
        let journal = closed.journal();
        Self { closed: Mutex::new(Some(closed)), emptied: OnceLock::new(), peaks, journal }
    }

    /// What the window held, which whoever asks first takes out of it.
    fn get(&self, py: Python<'_>) -> PyResult<&Snapshot> {
        let empty = || {
            // Taking leaves the mutex in order, even if another thread has panicked with it.
            let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
            closed.map(Closed::empty)
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

    /// Return one with the journal of this one, and nothing else.
    fn without_peaks(&self) -> Self {
        let emptied = OnceLock::from(Some(Snapshot::default()));
        Self { closed: Mutex::default(), emptied, peaks: 0, journal: self.journal.clone() }
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

/// The report of a snapshot as a list of dicts.
pub(super) fn report<'py>(py: Python<'py>, snapshot: &Snapshot) -> PyResult<Bound<'py, PyList>> {
    let lines = detached_if_large(py, snapshot.len(), || snapshot.report()).into_iter().map(|line| {
        let dict = PyDict::new(py);
        dict.set_item(names::model_id(py), line.model_id)?;
        dict.set_item(names::class_name(py), line.class_name)?;
        dict.set_item(names::confidence(py), line.peak.confidence)?;
        dict.set_item(names::inference_id(py), &line.peak.inference_id)?;
        dict.set_item(names::model_type(py), &line.peak.prediction_type)?;
        Ok(dict)
    });
    PyList::new(py, lines.collect::<PyResult<Vec<_>>>()?)
}
