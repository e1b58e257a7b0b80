//! `peakhold.PeakAggregator`.

use super::journal::Journal;
use super::snapshot::{WindowSnapshot, detached_if_large, report, statistics};
use super::warnings::Rejected;
use super::{classification, detections, items, tensors, texts};
use crate::{
    Aggregator, Confidences, DEFAULT_MAX_CLASSES, Frame, Names, Observation, PartId, Reason, Statistics, Tally,
    WindowId,
};
use pyo3::exceptions::{PyException, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use std::sync::Arc;

const MAX_CLASSES: &str = "PEAKHOLD_MAX_CLASSES";

/// Keep the most confident detection of every class until it is drained.
#[pyclass(frozen, module = "peakhold._peakhold")]
pub(super) struct PeakAggregator {
    aggregator: Aggregator,
    rejected: Rejected,
}

impl PeakAggregator {
    /// The statistics of the open window, with its journal and what that calls it, if it has one.
    pub(super) fn journaled_statistics(&self) -> Option<(Arc<crate::Journal>, (WindowId, PartId, Statistics))> {
        self.aggregator.journaled_statistics()
    }
}

#[pymethods]
impl PeakAggregator {
    #[new]
    #[pyo3(signature = (*, journal = None, about = &b""[..], statistics = false, name = ""))]
    fn new(journal: Option<&Journal>, about: &[u8], statistics: bool, name: &str) -> PyResult<Self> {
        let max_classes = match std::env::var(MAX_CLASSES) {
            Err(std::env::VarError::NotPresent) => DEFAULT_MAX_CLASSES,
            value => {
                value.ok().and_then(|value| value.trim().parse().ok()).filter(|&limit| limit > 0).ok_or_else(|| {
                    PyValueError::new_err(format!(
                        "{MAX_CLASSES} must be a whole number of at least 1: set it to one, or unset it"
                    ))
                })?
            }
        };
        let aggregator = match journal {
            Some(journal) => Aggregator::journaled(max_classes, journal.0.clone(), about),
            None => Aggregator::new(max_classes),
        };
        let aggregator = if statistics { aggregator.with_statistics() } else { aggregator };
        Ok(Self { aggregator, rejected: Rejected::new(name) })
    }

    /// Take one frame of a model; return the number of rows taken.
    #[pyo3(signature = (predictions, model_id))]
    fn observe(&self, predictions: &Bound<'_, PyAny>, model_id: &Bound<'_, PyAny>) -> PyResult<usize> {
        let model_id = model_id.cast::<PyString>().map_err(|_| {
            let kind = model_id.get_type();
            PyTypeError::new_err(format!("model_id must be a str such as \"project/3\", not {kind}"))
        })?;
        if predictions.is_none() {
            return Ok(0);
        }
        let mut tally = Tally::default();
        let mut observation = self.aggregator.observation();
        let outcome = match model_id.to_str() {
            Ok(model_id) if !items::is_too_long(model_id) => {
                observe_frame(&mut observation, predictions, model_id, &mut tally)
            }
            _ => Ok(Err(Reason::ModelIdInvalid)),
        };
        let py = predictions.py();
        // No array is looked at any more. Letting go of the interpreter costs more than a quick write.
        if observation.may_block() {
            py.detach(|| drop(observation));
        } else {
            drop(observation);
        }
        let rows = match outcome {
            Ok(Ok(rows)) => rows,
            Ok(Err(reason)) => {
                tally.add(reason, 1);
                0
            }
            Err(error) if error.is_instance_of::<PyException>(py) => {
                tally.add(Reason::PredictionUnreadable, 1);
                0
            }
            Err(error) => return Err(error),
        };
        self.rejected.add(py, model_id.to_str().unwrap_or("?"), &tally);
        Ok(rows)
    }

    /// Close the window, begin a new one, and return the closed one's report.
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let closed = self.aggregator.close();
        self.rejected.take_new(); // with the window that is reported here
        let peaks = usize::try_from(closed.peaks()).unwrap_or(usize::MAX);
        let snapshot = detached_if_large(py, peaks, || closed.release());
        let lines = report(py, &snapshot);
        // Giving a large one back takes milliseconds.
        detached_if_large(py, peaks, || drop(snapshot));
        lines
    }

    /// Close the window like `drain`, and return what it held for later use.
    fn snapshot(&self) -> WindowSnapshot {
        let closed = self.aggregator.close();
        let rejected = self.rejected.take_new();
        WindowSnapshot::closed(closed, rejected)
    }

    /// Whether windows that begin from now on have statistics.
    #[getter]
    fn has_statistics(&self) -> bool {
        self.aggregator.has_statistics()
    }

    #[setter]
    fn set_has_statistics(&self, statistics: bool) {
        self.aggregator.set_statistics(statistics);
    }

    /// The statistics of the open window so far; None if it has none.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.aggregator.statistics().map(|(_, so_far)| statistics(py, &so_far)).transpose()
    }

    /// Have the windows that begin from now on write journals, if none do so far.
    #[pyo3(signature = (journal, *, about = &b""[..]))]
    fn begin_journals(&self, journal: &Journal, about: &[u8]) {
        self.aggregator.begin_journals(journal.0.clone(), about);
    }

    /// Classes in the open window, counted per model; 0 if nothing was taken.
    #[getter]
    fn peaks(&self) -> u64 {
        self.aggregator.peaks()
    }

    /// What was skipped so far, by reason: rows, or frames where a whole one is.
    #[getter]
    fn rejected<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.rejected.counts(py)
    }

    /// Likewise, by model; of at most 16 models.
    #[getter]
    fn rejected_by_model<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.rejected.counts_by_model(py)
    }
}

fn observe_frame(
    observation: &mut Observation<'_>,
    predictions: &Bound<'_, PyAny>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<Result<usize, Reason>> {
    if let Ok(predictions) = predictions.cast::<PyDict>() {
        return classification::observe(observation, predictions, model_id, tally).map(Ok);
    }
    if let Some((confidence, data)) = detections::attributes(predictions)? {
        let outcome = detections::observe(observation, predictions, confidence, &data, model_id, tally)?;
        if outcome.is_err() && predictions.is_truthy()? {
            place(observation, model_id, tally);
        }
        return Ok(outcome);
    }
    if let Some(prediction) = tensors::recognize(predictions)? {
        let outcome = prediction.observe(observation, model_id, tally)?;
        if !matches!(outcome, Ok(1..)) && predictions.is_truthy()? {
            place(observation, model_id, tally);
        }
        return Ok(outcome);
    }
    if !predictions.is_truthy()? {
        return Ok(Ok(0));
    }
    place(observation, model_id, tally);
    Ok(Err(Reason::PredictionUnsupported))
}

/// Gives a model its place in the order of the report though nothing of its frame can be used.
fn place(observation: &mut Observation<'_>, model_id: &str, tally: &mut Tally) {
    if let Ok(empty) = Frame::new(0, Confidences::Missing, Names::Missing) {
        let (inference_id, prediction_type) = (texts::RowText::Missing, texts::RowText::Missing);
        observation.observe(model_id, &empty, &mut texts::FrameTexts { inference_id, prediction_type }, tally);
    }
}
