//! `peakhold.unique_inference_ids`.

use super::columns::{TextColumn, View};
use super::items::read_text;
use super::{detections, names, tensors, warnings};
use crate::{Column, Encoding, Reason, Rejections, Tally, label, unique_rows};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use std::collections::HashSet;

/// Rejections of this function, which has no window to count them in.
static REJECTIONS: Rejections = Rejections::new();

/// Return the inference ids of a frame, each once, in first-seen order.
#[pyfunction]
#[pyo3(signature = (predictions))]
pub(super) fn unique_inference_ids<'py>(predictions: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let py = predictions.py();
    let mut tally = Tally::default();
    let ids = match collect(predictions, &mut tally) {
        Ok(ids) => ids,
        Err(error) if error.is_instance_of::<PyException>(py) => {
            tally.add(Reason::PredictionUnreadable, 1);
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    warnings::count(py, &REJECTIONS, &tally);
    PyList::new(py, ids)
}

/// Return what `unique_inference_ids` skipped so far, by reason.
#[pyfunction]
pub(super) fn rejected_inference_ids(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    warnings::counts(py, &REJECTIONS)
}

fn collect<'py>(predictions: &Bound<'py, PyAny>, tally: &mut Tally) -> PyResult<Vec<Bound<'py, PyString>>> {
    let ids = ids_of_rows(predictions, tally)?;
    if ids.is_empty() { id_of_frame(predictions, tally) } else { Ok(ids) }
}

/// The inference id of a frame without detections, if its maker left one in its metadata.
fn id_of_frame<'py>(predictions: &Bound<'py, PyAny>, tally: &mut Tally) -> PyResult<Vec<Bound<'py, PyString>>> {
    let py = predictions.py();
    let mut unique = Unique::default();
    if let Some(metadata) = predictions.getattr_opt(names::metadata(py))?
        && let Ok(metadata) = metadata.cast::<PyDict>()
        && let Some(id) = metadata.get_item(names::inference_id(py))?
    {
        unique.push_object(&id, tally);
    }
    Ok(unique.ids)
}

fn ids_of_rows<'py>(predictions: &Bound<'py, PyAny>, tally: &mut Tally) -> PyResult<Vec<Bound<'py, PyString>>> {
    let py = predictions.py();
    let key = names::inference_id(py);
    let mut unique = Unique::default();
    if let Ok(predictions) = predictions.cast::<PyDict>() {
        if let Some(id) = predictions.get_item(key)? {
            unique.push_object(&id, tally);
        }
    } else if let Some(data) = predictions.getattr_opt(names::data(py))? {
        match TextColumn::hold(detections::column(&data, key.as_any())?)? {
            Ok(TextColumn::Missing) => {}
            Ok(TextColumn::Items(items)) => {
                for item in items {
                    unique.push_object(&item, tally);
                }
            }
            Ok(TextColumn::Array(array)) => {
                let view = View::new(&array).ok();
                if let Some((column, encoding)) = view.and_then(|view| view.text()) {
                    // Rows of one encoding and width that differ are different texts.
                    return Ok(texts(py, &column, encoding, &unique_rows(&column), tally));
                }
            }
            Err(reason) => tally.add(reason, 1),
        }
    } else if let Some(prediction) = tensors::recognize(predictions)?
        && let Some(id) = prediction.inference_id()?
    {
        unique.push_object(&id, tally);
    }
    Ok(unique.ids)
}

/// The texts in some rows, without those that are empty or unusable.
///
/// Making a string starts no garbage collection, which could move the array under view.
fn texts<'py>(
    py: Python<'py>,
    column: &Column<'_>,
    encoding: Encoding,
    rows: &[usize],
    tally: &mut Tally,
) -> Vec<Bound<'py, PyString>> {
    let mut texts = Vec::with_capacity(rows.len());
    let mut text = String::new();
    for &row in rows {
        if label::read_text(encoding, column.row(row), &mut text).is_none() {
            tally.add(Reason::InferenceIdInvalid, 1);
        } else if !text.is_empty() {
            texts.push(PyString::new(py, &text));
        }
    }
    texts
}

/// Ids in the order of their first appearance.
#[derive(Default)]
struct Unique<'py> {
    ids: Vec<Bound<'py, PyString>>,
    seen: HashSet<String, foldhash::fast::RandomState>,
}

impl<'py> Unique<'py> {
    fn push_object(&mut self, item: &Bound<'py, PyAny>, tally: &mut Tally) {
        // None says that there is no id, which is no mistake.
        if item.is_none() {
            return;
        }
        let mut id = String::new();
        if !read_text(item, &mut id) {
            tally.add(Reason::InferenceIdInvalid, 1);
        } else if !id.is_empty() && !self.seen.contains(&id) {
            self.ids.push(PyString::new(item.py(), &id));
            self.seen.insert(id);
        }
    }
}
