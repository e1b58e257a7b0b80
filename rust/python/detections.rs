//! `sv.Detections`, and whatever has its `confidence` and `data`.

use super::columns::{Held, TextColumn, View, array_rows, text_array};
use super::names;
use super::texts::{FrameTexts, RowText};
use crate::{Confidences, Frame, Names, Number, Observation, Reason, Tally};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The attributes of a detections object that are read, or `None` if it has them not.
pub(super) fn attributes<'py>(
    predictions: &Bound<'py, PyAny>,
) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let py = predictions.py();
    let Some(data) = predictions.getattr_opt(names::data(py))? else {
        return Ok(None);
    };
    let Some(confidence) = predictions.getattr_opt(names::confidence(py))? else {
        return Ok(None);
    };
    Ok(Some((confidence, data)))
}

/// A value of `data`, if `data` is a dict that has it.
pub(super) fn column<'py>(data: &Bound<'py, PyAny>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    data.cast::<PyDict>().map_or(Ok(None), |data| data.get_item(key))
}

/// From how many rows on class ids pay: reading one more attribute costs as much as they save on some ten rows.
const ROWS_WORTH_IDS: usize = 32;

/// What is read of a detections object. Reading it may run Python code, and so comes before any look into an array.
struct Columns<'py> {
    confidence: Bound<'py, PyAny>,
    class_name: Option<Bound<'py, PyAny>>,
    inference_id: Option<Bound<'py, PyAny>>,
    prediction_type: Option<Bound<'py, PyAny>>,
}

/// Observes a detections object; the inner error is the reason why the frame cannot be read.
pub(super) fn observe<'py>(
    observation: &mut Observation<'_>,
    predictions: &Bound<'py, PyAny>,
    confidence: Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<Result<usize, Reason>> {
    let py = predictions.py();
    // The check for exactly that type is the quicker one.
    let columns = match data.cast_exact::<PyDict>().or_else(|_| data.cast::<PyDict>()) {
        Ok(data) => Columns {
            confidence,
            class_name: data.get_item(names::class_name(py))?,
            inference_id: data.get_item(names::inference_id(py))?,
            prediction_type: data.get_item(names::prediction_type(py))?,
        },
        Err(_) => Columns { confidence, class_name: None, inference_id: None, prediction_type: None },
    };
    let class_id = match array_rows(&columns.confidence) {
        Some(ROWS_WORTH_IDS..) => match predictions.getattr_opt(names::class_id(py)) {
            // They are a hint, and no frame is lost for want of one.
            Err(error) if error.is_instance_of::<PyException>(py) => None,
            class_id => class_id?,
        },
        _ => None,
    };
    if let Some(rows) = columns.observe_in_place(class_id.as_ref(), observation, model_id, tally) {
        return Ok(Ok(rows));
    }
    // Without boxes there is no detection, whatever the other columns hold.
    let boxes = predictions.getattr_opt(names::xyxy(py))?.and_then(|boxes| array_rows(&boxes));
    columns.observe(boxes, observation, model_id, tally)
}

impl Columns<'_> {
    /// Observes what model blocks make: four arrays of one length that are read in place. `None` if these are not such.
    ///
    /// Of one length, not empty, and each from another place: these are as many detections, and the boxes need not be looked at.
    fn observe_in_place(
        &self,
        class_id: Option<&Bound<'_, PyAny>>,
        observation: &mut Observation<'_>,
        model_id: &str,
        tally: &mut Tally,
    ) -> Option<usize> {
        let (confidences, number, swapped) = View::of(&self.confidence)?.numbers()?;
        let (names, encoding) = View::of(self.class_name.as_ref()?)?.text()?;
        let (inference_ids, ids) = text_array(self.inference_id.as_ref()?)?;
        let (prediction_types, types) = text_array(self.prediction_type.as_ref()?)?;
        let rows = confidences.rows();
        if rows == 0 || ids != rows || types != rows {
            return None;
        }
        let confidences = Confidences::Numbers { column: confidences, number, swapped };
        let mut frame = Frame::new(rows, confidences, Names::Rows { column: names, encoding }).ok()?;
        if let Some((ids, Number::I64, false)) = class_id.and_then(|ids| View::of(ids)?.numbers()) {
            frame = frame.with_hints(ids);
        }
        let mut texts = FrameTexts {
            inference_id: RowText::Array(inference_ids),
            prediction_type: RowText::Array(prediction_types),
        };
        Some(observation.observe(model_id, &frame, &mut texts, tally))
    }

    /// Observes whatever else detections are made of.
    fn observe(
        self,
        boxes: Option<usize>,
        observation: &mut Observation<'_>,
        model_id: &str,
        tally: &mut Tally,
    ) -> PyResult<Result<usize, Reason>> {
        // Conversions first: they may run Python code, and no view of an array must be alive while that happens.
        macro_rules! held {
            ($held:expr) => {
                match $held? {
                    Ok(held) => held,
                    Err(reason) => return Ok(Err(reason)),
                }
            };
        }
        let confidences = held!(Held::confidences(Some(self.confidence)));
        let names = held!(Held::names(self.class_name));
        let inference_ids = held!(TextColumn::hold(self.inference_id));
        let prediction_types = held!(TextColumn::hold(self.prediction_type));
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
                inference_id: RowText::new(&inference_ids),
                prediction_type: RowText::new(&prediction_types),
            };
            Ok(observation.observe(model_id, &frame, &mut texts, tally))
        })())
    }
}
