//! Classification predictions: a dict whose `"predictions"` is a list (single-label) or a dict (multi-label).
#![allow(unsafe_code)]

use super::items::{class_text, number};
use super::texts::{FrameTexts, RowText};
use super::{dicts, names};
use crate::{Observation, Reason, Rows, Tally};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyList};

/// Observes a dict; one without predictions only gives its model a place.
pub(super) fn observe(
    observation: &mut Observation<'_>,
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
    observation.observe_rows(model_id, tally, |rows| {
        if let Some(entries) = single_label {
            for entry in entries {
                push(rows, None, &entry)?;
            }
        } else if let Some(entries) = multi_label {
            // A copy: converting a confidence may run code that changes the dict.
            for (name, details) in dicts::items(entries) {
                push(rows, Some(&name), &details)?;
            }
        }
        Ok(FrameTexts {
            inference_id: RowText::Shared(predictions.get_item(names::inference_id(py))?),
            prediction_type: RowText::Shared(predictions.get_item(names::prediction_type(py))?),
        })
    })
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
    // SAFETY: the value of a float is read at once, and anything else gets a reference.
    let confidence = unsafe {
        dicts::read(details, names::confidence(py), |confidence| match confidence {
            Some(confidence) => match confidence.cast_exact::<PyFloat>() {
                Ok(float) => Ok(float.value()),
                Err(_) => Err(confidence.clone()),
            },
            None => Ok(0.0),
        })
    }?;
    let confidence = match confidence {
        Ok(confidence) => Ok(confidence),
        Err(confidence) => number(&confidence)?,
    };
    if let Some(name) = name {
        rows.push(confidence, class_text(name));
        return Ok(());
    }
    // SAFETY: reading a text and adding a row run no Python code. (Up to CPython 3.11 the exception for a lone surrogate may start the
    // garbage collector, and with it finalizers; it holds the text, of which nothing is used any more.)
    unsafe {
        dicts::read(details, names::class(py), |name| {
            rows.push(confidence, name.map_or(Err(Reason::ClassNameMissing), class_text));
        })
    }
}
