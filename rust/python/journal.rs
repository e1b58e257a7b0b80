//! `peakhold._peakhold.WindowJournal`, and reading the journals of others.

use super::snapshot::WindowSnapshot;
use crate::{WindowJournal, recover};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// The file that a closed window's record highs were written to.
#[pyclass(frozen, name = "WindowJournal", module = "peakhold._peakhold")]
pub(super) struct Journal(pub(super) Arc<WindowJournal>);

#[pymethods]
impl Journal {
    /// File name without its suffix; unique for ever.
    #[getter]
    fn name(&self) -> String {
        // Every path has a name: it ends with the number of the window.
        self.0.path().file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Why writing was given up, None if all is written.
    #[getter]
    fn error(&self) -> Option<String> {
        self.0.error().map(ToString::to_string)
    }

    /// Writes of its aggregator that took over 5 ms: the disk is slow.
    #[getter]
    fn slow_writes(&self) -> u64 {
        self.0.slow_writes()
    }

    /// Delete the file, if there is one: the window is safe elsewhere.
    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.remove())?)
    }
}

/// Read a journal as far as it is whole.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(super) fn recover_journal<'py>(
    py: Python<'py>,
    data: &[u8],
) -> PyResult<(Option<Bound<'py, PyBytes>>, WindowSnapshot, bool)> {
    let recovered = recover(data).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let about = recovered.about.map(|about| PyBytes::new(py, &about));
    Ok((about, WindowSnapshot::new(recovered.snapshot), recovered.damaged))
}
