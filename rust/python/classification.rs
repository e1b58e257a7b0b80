//! Classification predictions: a dict whose `"predictions"` is a list (single-label) or a dict (multi-label).

use super::items::{class_name, number};
use super::names;
use super::texts::{FrameTexts, RowText};
use crate::{Aggregator, Confidences, Frame, Names, Reason, Tally};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The rows of a frame, converted one by one.
#[derive(Default)]
struct Rows {
    confidences: Vec<Result<f64, Reason>>,
    names: Vec<Result<Box<[u8]>, Reason>>,
}

impl Rows {
    fn push(&mut self, name: Option<&Bound<'_, PyAny>>, details: &Bound<'_, PyAny>) -> PyResult<()> {
        let (confidence, name) = match details.cast::<PyDict>() {
            Ok(details) => {
                let py = details.py();
                let confidence = details.get_item(names::confidence(py))?;
                let confidence = confidence.map_or(Ok(Ok(0.0)), |confidence| number(&confidence))?;
                let name = match name {
                    Some(name) => Some(name.clone()),
                    None => details.get_item(names::class(py))?,
                };
                (confidence, name.map_or(Err(Reason::ClassNameMissing), |name| class_name(&name)))
            }
            Err(_) => (Err(Reason::PredictionNotDict), Err(Reason::PredictionNotDict)),
        };
        self.confidences.push(confidence);
        self.names.push(name);
        Ok(())
    }
}

/// Observes a dict; one without predictions only gives its model a place.
pub(super) fn observe(
    aggregator: &Aggregator,
    predictions: &Bound<'_, PyDict>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<Result<usize, Reason>> {
    if predictions.is_empty() {
        return Ok(Ok(0));
    }
    let py = predictions.py();
    let mut rows = Rows::default();
    let entries = predictions.get_item(names::predictions(py))?;
    if let Some(entries) = entries.as_ref().and_then(|entries| entries.cast::<PyList>().ok()) {
        for entry in entries {
            rows.push(None, &entry)?;
        }
    } else if let Some(entries) = entries.as_ref().and_then(|entries| entries.cast::<PyDict>().ok()) {
        // A list of them: converting a confidence may run code that changes the dict.
        for entry in entries.items() {
            let (name, details) = entry.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            rows.push(Some(&name), &details)?;
        }
    } else {
        tally.add(Reason::PredictionUnsupported, 1);
    }
    let mut texts = FrameTexts {
        inference_id: RowText::Shared(predictions.get_item(names::inference_id(py))?),
        prediction_type: RowText::Shared(predictions.get_item(names::prediction_type(py))?),
    };
    let Rows { confidences, names } = &rows;
    let frame = Frame::new(names.len(), Confidences::Values(confidences), Names::Texts(names));
    Ok(frame.map(|frame| aggregator.observe(model_id, &frame, &mut texts, tally)))
}
