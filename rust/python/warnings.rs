//! Rejections as Python sees them: the first of each kind in the log, and counts.

use crate::{Reason, Rejections, Tally};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Models whose rejections are counted separately; those of further models are in the total only.
const MOST_MODELS: usize = 16;

/// What an aggregator did not take, or not whole.
pub(super) struct Rejected {
    all: Rejections,
    /// Of `all`, what closed windows said.
    reported: Rejections,
    models: Mutex<BTreeMap<String, Arc<Rejections>>>,
    /// What the log calls the aggregator.
    name: String,
}

impl Rejected {
    pub(super) fn new(name: &str) -> Self {
        let (all, reported) = (Rejections::default(), Rejections::default());
        Self { all, reported, models: Mutex::default(), name: name.to_owned() }
    }

    /// Adds a frame's counts and logs a warning for each reason that was never counted before.
    pub(super) fn add(&self, py: Python<'_>, model_id: &str, tally: &Tally) {
        if tally.is_empty() {
            return;
        }
        self.all.add(tally, |reason| {
            if let Err(error) = warn(py, reason, model_id, &self.name) {
                // A broken log handler must not break the stream.
                error.write_unraisable(py, None);
            }
        });
        if let Some(model) = self.model(model_id) {
            model.add(tally, |_| ());
        }
    }

    fn model(&self, model_id: &str) -> Option<Arc<Rejections>> {
        // Whatever a panic left there are counts.
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = models.get(model_id) {
            return Some(model.clone());
        }
        (models.len() < MOST_MODELS).then(|| models.entry(model_id.to_owned()).or_default().clone())
    }

    /// The counts so far, by reason.
    pub(super) fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counts(py, &self.all)
    }

    /// The counts so far, by model and reason.
    pub(super) fn counts_by_model<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let by_model = PyDict::new(py);
        for (model_id, rejections) in models {
            by_model.set_item(model_id, counts(py, &rejections)?)?;
        }
        Ok(by_model)
    }

    /// The counts since this was called last, by the names of reasons.
    pub(super) fn take_new(&self) -> BTreeMap<String, u64> {
        let new = self.all.counts().map(|(reason, rows)| (reason, rows - self.reported.raise(reason, rows).min(rows)));
        new.filter(|&(_, rows)| rows > 0).map(|(reason, rows)| (reason.name().to_owned(), rows)).collect()
    }
}

/// The counts of what was rejected so far, by reason.
pub(super) fn counts<'py>(py: Python<'py>, rejections: &Rejections) -> PyResult<Bound<'py, PyDict>> {
    let counts = PyDict::new(py);
    for (reason, count) in rejections.counts() {
        counts.set_item(reason.name(), count)?;
    }
    Ok(counts)
}

/// Adds what was counted outside of any window, and logs each reason that was never counted before.
pub(super) fn count(py: Python<'_>, rejections: &Rejections, tally: &Tally) {
    rejections.add(tally, |reason| {
        let format = "%s (counted as %r; further ones are counted, not logged)";
        let logged = logger(py)
            .and_then(|logger| logger.call_method1("warning", (format, reason.remedy(), reason.name())).map(|_| ()));
        if let Err(error) = logged {
            error.write_unraisable(py, None);
        }
    });
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

fn warn(py: Python<'_>, reason: Reason, model_id: &str, name: &str) -> PyResult<()> {
    let (format, whose) = if name.is_empty() {
        ("%s (model %.100r; counted as %r; further ones are counted, not logged)", None)
    } else {
        ("%s (model %.100r, window %.100r; counted as %r; further ones are counted, not logged)", Some(name))
    };
    let logger = logger(py)?;
    match whose {
        None => logger.call_method1("warning", (format, reason.remedy(), model_id, reason.name()))?,
        Some(name) => logger.call_method1("warning", (format, reason.remedy(), model_id, name, reason.name()))?,
    };
    Ok(())
}
