//! The first rejection of each kind, told to the log.

use crate::{Reason, Rejections, Tally};
use pyo3::prelude::*;

/// Adds a frame's counts and logs a warning for each reason that was never counted before.
pub(super) fn count(py: Python<'_>, rejections: &Rejections, tally: &Tally) {
    rejections.add(tally, |reason| {
        if let Err(error) = warn(py, reason) {
            // A broken log handler must not break the stream.
            error.write_unraisable(py, None);
        }
    });
}

fn warn(py: Python<'_>, reason: Reason) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", ("peakhold",))?;
    let format = "%s (counted as %r; further ones are counted, not logged)";
    logger.call_method1("warning", (format, reason.remedy(), reason.name()))?;
    Ok(())
}
