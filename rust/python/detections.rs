//! `sv.Detections`, and whatever has its `confidence` and `data`.

use super::columns::{Held, TextColumn, array_rows};
use super::texts::{FrameTexts, RowText};
use crate::{Aggregator, Frame, Reason, Tally};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The attributes of a detections object that are read, or `None` if it has them not.
pub(super) fn attributes<'py>(
    predictions: &Bound<'py, PyAny>,
) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let py = predictions.py();
    let Some(data) = predictions.getattr_opt(intern!(py, "data"))? else {
        return Ok(None);
    };
    let Some(confidence) = predictions.getattr_opt(intern!(py, "confidence"))? else {
        return Ok(None);
    };
    Ok(Some((confidence, data)))
}

/// A value of `data`, if `data` is a dict that has it.
pub(super) fn column<'py>(data: &Bound<'py, PyAny>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    data.cast::<PyDict>().map_or(Ok(None), |data| data.get_item(key))
}

/// Observes a detections object; the inner error is the reason why the frame cannot be read.
pub(super) fn observe<'py>(
    aggregator: &Aggregator,
    predictions: &Bound<'py, PyAny>,
    confidence: Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<Result<usize, Reason>> {
    let py = predictions.py();
    // Conversions first: they may run Python code, and no view of an array must be alive while that happens.
    macro_rules! held {
        ($held:expr) => {
            match $held? {
                Ok(held) => held,
                Err(reason) => return Ok(Err(reason)),
            }
        };
    }
    let confidences = held!(Held::confidences(Some(confidence)));
    let names = held!(Held::names(column(data, intern!(py, "class_name").as_any())?));
    let inference_ids = held!(TextColumn::hold(column(data, intern!(py, "inference_id").as_any())?));
    let prediction_types = held!(TextColumn::hold(column(data, intern!(py, "prediction_type").as_any())?));
    // Without boxes there is no detection, whatever the other columns hold.
    let boxes = predictions.getattr_opt(intern!(py, "xyxy"))?.and_then(|boxes| array_rows(&boxes));
    let rows = boxes.or_else(|| confidences.rows()).or_else(|| names.rows()).unwrap_or(0);
    if rows == 0 {
        return Ok(Ok(0));
    }
    if !(inference_ids.fits(rows) && prediction_types.fits(rows)) {
        return Ok(Err(Reason::ColumnLengthsDiffer));
    }
    Ok((|| {
        let frame = Frame::new(rows, confidences.as_confidences()?, names.as_names()?)?;
        let mut texts = FrameTexts {
            inference_id: RowText::new(&inference_ids)?,
            prediction_type: RowText::new(&prediction_types)?,
        };
        Ok(aggregator.observe(model_id, &frame, &mut texts, tally))
    })())
}
