//! Rejections as Python sees them: the first of each kind in the log, and counts.

use crate::{Reason, Rejections, Tally};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// Adds a frame's counts and logs a warning for each reason that was never counted before.
pub(super) fn count(py: Python<'_>, rejections: &Rejections, tally: &Tally) {
    rejections.add(tally, |reason| {
        if let Err(error) = warn(py, reason) {
            // A broken log handler must not break the stream.
            error.write_unraisable(py, None);
        }
    });
}

/// The counts of what was rejected so far, by reason.
pub(super) fn counts<'py>(py: Python<'py>, rejections: &Rejections) -> PyResult<Bound<'py, PyDict>> {
    let counts = PyDict::new(py);
    for (reason, count) in rejections.counts() {
        counts.set_item(reason.name(), count)?;
    }
    Ok(counts)
}

/// Gets hold of the logger, so that a frame imports nothing: another thread may hold the lock of an import when the process is forked.
pub(super) fn prepare(py: Python<'_>) -> PyResult<()> {
    logger(py).map(|_| ())
}

fn logger(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let find = || Ok(py.import("logging")?.call_method1("getLogger", ("peakhold",))?.unbind());
    LOGGER.get_or_try_init(py, find).map(|logger| logger.bind(py))
}

fn warn(py: Python<'_>, reason: Reason) -> PyResult<()> {
    let format = "%s (counted as %r; further ones are counted, not logged)";
    logger(py)?.call_method1("warning", (format, reason.remedy(), reason.name()))?;
    Ok(())
}
