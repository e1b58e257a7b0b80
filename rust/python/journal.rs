//! `peakhold._peakhold.Journal`, `WindowJournal`, and reading the journals of others.

use super::snapshot::WindowSnapshot;
use crate::{JournalSettings, WindowId, WindowJournal, recover};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the windows of a process are written down.
#[pyclass(frozen, module = "peakhold._peakhold")]
pub(super) struct Journal(pub(super) Arc<crate::Journal>);

#[pymethods]
impl Journal {
    #[new]
    #[pyo3(signature = (directory, *, sync = false, limit = u64::MAX))]
    fn new(directory: PathBuf, sync: bool, limit: u64) -> Self {
        Self(Arc::new(crate::Journal::new(JournalSettings { directory, sync, limit })))
    }

    /// Note that a window is safe elsewhere, whoever wrote it.
    fn commit(&self, py: Python<'_>, aggregator: u64, window: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.commit(WindowId { aggregator, window }))?)
    }

    /// Keep the segments few though a window lives long.
    fn tidy(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.tidy())?)
    }
}

/// What a window wrote to the journal of its process.
#[pyclass(frozen, name = "WindowJournal", module = "peakhold._peakhold")]
pub(super) struct OfWindow(pub(super) Arc<WindowJournal>);

#[pymethods]
impl OfWindow {
    /// Name of the directory, number of the aggregator, number of the window; unique for ever.
    #[getter]
    fn name(&self) -> String {
        self.0.name()
    }

    /// Why writing was given up, None if all is written.
    #[getter]
    fn error(&self) -> Option<String> {
        self.0.error().map(ToString::to_string)
    }

    /// Writes of the process that took over 5 ms: the disk is slow.
    #[getter]
    fn slow_writes(&self) -> u64 {
        self.0.slow_writes()
    }

    /// Note when the window was closed; return whether it is in the journal.
    #[pyo3(signature = (at, /))]
    fn close(&self, py: Python<'_>, at: i64) -> PyResult<bool> {
        Ok(py.detach(|| self.0.close(at))?)
    }

    /// Note that the window is safe elsewhere.
    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.remove())?)
    }
}

/// Numbers of the aggregator and the window, what it is about, when it was closed, and its peaks.
type Window<'py> = (u64, u64, Option<Bound<'py, PyBytes>>, Option<i64>, WindowSnapshot);

/// Read the segments of a process, in whatever state they are.
#[pyfunction]
#[pyo3(signature = (segments, /))]
#[allow(clippy::needless_pass_by_value, reason = "that is how a list is taken")]
pub(super) fn recover_journal(py: Python<'_>, segments: Vec<PyBackedBytes>) -> PyResult<(Vec<Window<'_>>, u64, u64)> {
    let recovered = py
        .detach(|| recover(segments.iter().map(|segment| &**segment)))
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let windows = recovered.windows.into_iter().map(|(id, window)| {
        let about = window.about.map(|about| PyBytes::new(py, &about));
        (id.aggregator, id.window, about, window.closed_at, WindowSnapshot::new(window.snapshot))
    });
    Ok((windows.collect(), recovered.damaged, recovered.unknown))
}
