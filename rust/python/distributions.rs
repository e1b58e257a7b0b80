//! Tensor-native classification: a confidence for each class of a map from ids to names.

use super::columns::Held;
use super::items::{class_name, number};
use super::names;
use super::tensors::{Metadata, column, rows};
use crate::{Confidences, Frame, Name, Names, Observation, Reason, Tally};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cmp::Ordering;

/// One class of a distribution.
type Row = (Result<f64, Reason>, Name);

/// Observes a single-label prediction: a distribution for each of its images, of shape `(images, classes)`.
pub(super) fn observe_images(
    observation: &mut Observation<'_>,
    prediction: &Bound<'_, PyAny>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<Result<usize, Reason>> {
    let py = prediction.py();
    let confidences = column(prediction, names::confidence(py))?;
    let images = rows(prediction, names::class_id(py))?;
    if images != Some(confidences.len()?) {
        return Ok(Err(Reason::ColumnLengthsDiffer));
    }
    let mut taken = 0;
    for (image, metadata) in Metadata::of_images(prediction)?.iter().take(images.unwrap_or(0)).enumerate() {
        if image > 0 {
            observation.begin_frame();
        }
        match classes(&confidences.get_item(image)?, metadata)? {
            Ok(mut classes) => {
                round_and_sort(&mut classes);
                match observe(observation, classes, metadata, model_id, tally)? {
                    Ok(rows) => taken += rows,
                    Err(reason) => tally.add(reason, 1),
                }
            }
            Err(reason) => tally.add(reason, 1),
        }
    }
    Ok(Ok(taken))
}

/// Observes a multi-label prediction: one distribution, of shape `(classes,)`.
pub(super) fn observe_labels(
    observation: &mut Observation<'_>,
    prediction: &Bound<'_, PyAny>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<Result<usize, Reason>> {
    let metadata = Metadata::of_image(prediction)?;
    match classes(&column(prediction, names::confidence(prediction.py()))?, &metadata)? {
        Ok(classes) => observe(observation, classes, &metadata, model_id, tally),
        Err(reason) => Ok(Err(reason)),
    }
}

/// The classes of the map in the order of their ids, without those below the threshold, if there is one.
fn classes(confidences: &Bound<'_, PyAny>, metadata: &Metadata<'_>) -> PyResult<Result<Vec<Row>, Reason>> {
    let confidences = match Held::confidences(Some(confidences.clone()))? {
        Ok(confidences) => confidences,
        Err(reason) => return Ok(Err(reason)),
    };
    let threshold = match metadata.get("classification_confidence_threshold")? {
        Some(threshold) => match number(&threshold)? {
            Ok(threshold) => Some(threshold),
            Err(reason) => return Ok(Err(reason)),
        },
        None => None,
    };
    let names = match metadata.class_names()? {
        Ok(names) => sorted(names.as_ref()),
        Err(reason) => return Ok(Err(reason)),
    };
    let count = confidences.rows().unwrap_or(0);
    let values = match confidences.as_confidences().and_then(|values| Frame::new(count, values, Names::Missing)) {
        Ok(frame) => frame.confidences,
        Err(reason) => return Ok(Err(reason)),
    };
    let rows = names.into_iter().filter_map(|(id, name)| {
        let row = id.filter(|&id| id < count).ok_or(Reason::ClassIdInvalid);
        let confidence = row.and_then(|row| values.get(row));
        let dropped = matches!((&confidence, threshold), (&Ok(confidence), Some(threshold)) if confidence < threshold);
        (!dropped).then_some((confidence, name))
    });
    Ok(Ok(rows.collect()))
}

/// The names of a map in the order of their ids; an id that cannot be one comes first, as None.
fn sorted(names: Option<&Bound<'_, PyDict>>) -> Vec<(Option<usize>, Name)> {
    // A list of them: reading an id may run code that changes the dict.
    let entries = names.into_iter().flat_map(PyDictMethods::items);
    let entries = entries.filter_map(|entry| entry.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().ok());
    let mut names: Vec<_> = entries.map(|(id, name)| (id.extract().ok(), class_name(&name))).collect();
    names.sort_by_key(|&(id, _)| id);
    names
}

/// Rounds each confidence and puts the most confident first; equal ones stay in the order of their ids.
fn round_and_sort(rows: &mut [Row]) {
    for (confidence, _) in &mut *rows {
        *confidence = confidence.map(rounded);
    }
    rows.sort_by(|(one, _), (other, _)| match (one, other) {
        (Ok(one), Ok(other)) => other.partial_cmp(one).unwrap_or(Ordering::Equal),
        (one, other) => one.is_err().cmp(&other.is_err()),
    });
}

/// Rounds to four places as Python does: to the nearest decimal, then to the number nearest to that.
fn rounded(confidence: f64) -> f64 {
    let scaled = confidence * 1e4;
    // Off a tie by more than the product can be wrong, its nearest integer is the decimal's; dividing rounds once.
    if scaled.abs() < 1e6 && (scaled - scaled.round()).abs() < 0.499_999 {
        return scaled.round() / 1e4;
    }
    format!("{confidence:.4}").parse().unwrap_or(confidence)
}

fn observe(
    observation: &mut Observation<'_>,
    rows: Vec<Row>,
    metadata: &Metadata<'_>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<Result<usize, Reason>> {
    let (confidences, names): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let mut texts = metadata.texts()?;
    let frame = Frame::new(names.len(), Confidences::Values(&confidences), Names::Texts(&names));
    Ok(frame.map(|frame| observation.observe(model_id, &frame, &mut texts, tally)))
}
