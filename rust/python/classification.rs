//! Classification predictions: a dict whose `"predictions"` is a list (single-label) or a dict (multi-label).

use super::items::{class_text, number};
use super::names;
use super::texts::{FrameTexts, RowText};
use crate::{Aggregator, Reason, Rows, Tally};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::cell::RefCell;

/// Observes a dict; one without predictions only gives its model a place.
pub(super) fn observe(
    aggregator: &Aggregator,
    predictions: &Bound<'_, PyDict>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<usize> {
    if predictions.is_empty() {
        return Ok(0);
    }
    let py = predictions.py();
    let entries = predictions.get_item(names::predictions(py))?;
    let entries = entries.as_ref();
    let single_label = entries.and_then(|entries| entries.cast::<PyList>().ok());
    let multi_label = entries.and_then(|entries| entries.cast::<PyDict>().ok());
    if single_label.is_none() && multi_label.is_none() {
        tally.add(Reason::PredictionUnsupported, 1);
    }
    aggregator.observe_rows(model_id, tally, |rows| {
        if let Some(entries) = single_label {
            for entry in entries {
                push(rows, None, &entry)?;
            }
        } else if let Some(entries) = multi_label {
            for (name, details) in items(entries)? {
                push(rows, Some(&name), &details)?;
            }
        }
        Ok(FrameTexts {
            inference_id: RowText::Shared(predictions.get_item(names::inference_id(py))?),
            prediction_type: RowText::Shared(predictions.get_item(names::prediction_type(py))?),
        })
    })
}

/// The items of a dict as they are now: converting a confidence may run code that changes the dict.
fn items<'py>(dict: &Bound<'py, PyDict>) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let items = RefCell::new(Vec::with_capacity(dict.len()));
    dict.locked_for_each(|key, value| {
        items.borrow_mut().push((key, value));
        Ok(())
    })?;
    Ok(items.into_inner())
}

/// Adds a class, under this name or the one in its details.
#[inline]
fn push(rows: &mut Rows<'_>, name: Option<&Bound<'_, PyAny>>, details: &Bound<'_, PyAny>) -> PyResult<()> {
    // The check for exactly that type is the quicker one.
    let Ok(details) = details.cast_exact::<PyDict>().or_else(|_| details.cast::<PyDict>()) else {
        rows.push(Err(Reason::PredictionNotDict), Err(Reason::PredictionNotDict));
        return Ok(());
    };
    let py = details.py();
    let confidence = match details.get_item(names::confidence(py))? {
        Some(confidence) => number(&confidence)?,
        None => Ok(0.0),
    };
    let inside = if name.is_none() { details.get_item(names::class(py))? } else { None };
    let name = name.or(inside.as_ref());
    rows.push(confidence, name.map_or(Err(Reason::ClassNameMissing), class_text));
    Ok(())
}
