//! Tensor-native predictions: objects whose columns are torch tensors, or arrays, and whose texts are in metadata of the image.
//!
//! They are known by their attributes, so that torch is never imported here. On the CPU a tensor's memory is looked at in place; from
//! another device the columns that are needed, confidences and class ids, are copied over, once a frame.

use super::columns::{Held, View};
use super::items::{class_name, read_text};
use super::texts::{FrameTexts, RowText};
use super::{distributions, names};
use crate::{Frame, Name, Names, Observation, Reason, Tally, unique_integers};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

/// A prediction that was recognized.
pub(super) enum Prediction<'py> {
    /// Detections with or without masks, or those of a pair of key points and detections.
    Boxes(Bound<'py, PyAny>),
    /// One distribution over all classes per image.
    SingleLabel(Bound<'py, PyAny>),
    MultiLabel(Bound<'py, PyAny>),
}

/// Tells by its attributes which prediction an object is, if any.
pub(super) fn recognize<'py>(predictions: &Bound<'py, PyAny>) -> PyResult<Option<Prediction<'py>>> {
    let py = predictions.py();
    if let Ok(pair) = predictions.cast::<PyTuple>() {
        if pair.len() != 2 {
            return Ok(None);
        }
        // Without its detections, a pair of key points and None has no confidences either.
        let detections = recognize(&pair.get_item(1)?)?;
        return Ok(detections.filter(|detections| matches!(detections, Prediction::Boxes(_))));
    }
    let has = |name: &Bound<'py, PyString>| predictions.getattr_opt(name).map(|value| value.is_some());
    if !has(names::confidence(py))? {
        return Ok(None);
    }
    Ok(if has(names::class_id(py))? {
        if has(names::image_metadata(py))? {
            Some(Prediction::Boxes(predictions.clone()))
        } else if has(names::images_metadata(py))? {
            Some(Prediction::SingleLabel(predictions.clone()))
        } else {
            None
        }
    } else if has(names::class_ids(py))? && has(names::image_metadata(py))? {
        Some(Prediction::MultiLabel(predictions.clone()))
    } else {
        None
    })
}

impl<'py> Prediction<'py> {
    /// Observes the prediction; the inner error is the reason why the frame cannot be read.
    pub(super) fn observe(
        &self,
        observation: &mut Observation<'_>,
        model_id: &str,
        tally: &mut Tally,
    ) -> PyResult<Result<usize, Reason>> {
        match self {
            Self::Boxes(detections) => observe_boxes(observation, detections, model_id, tally),
            Self::SingleLabel(prediction) => distributions::observe_images(observation, prediction, model_id, tally),
            Self::MultiLabel(prediction) => distributions::observe_labels(observation, prediction, model_id, tally),
        }
    }

    /// The inference id of the image, the first one if there are several.
    pub(super) fn inference_id(&self) -> PyResult<Option<Bound<'py, PyAny>>> {
        let metadata = match self {
            Self::Boxes(prediction) | Self::MultiLabel(prediction) => Metadata::of_image(prediction)?,
            Self::SingleLabel(prediction) => Metadata::of_images(prediction)?.remove(0),
        };
        metadata.get("inference_id")
    }
}

/// What is known of an image beside its tensors.
#[derive(Default)]
pub(super) struct Metadata<'py>(Option<Bound<'py, PyDict>>);

impl<'py> Metadata<'py> {
    pub(super) fn of_image(prediction: &Bound<'py, PyAny>) -> PyResult<Self> {
        let metadata = prediction.getattr(names::image_metadata(prediction.py()))?;
        Ok(Self(metadata.cast_into().ok()))
    }

    /// One for each image, at least one.
    pub(super) fn of_images(prediction: &Bound<'py, PyAny>) -> PyResult<Vec<Self>> {
        let metadata = prediction.getattr(names::images_metadata(prediction.py()))?;
        let mut images: Vec<_> = match metadata.cast::<PyList>() {
            Ok(images) => images.iter().map(|image| Self(image.cast_into().ok())).collect(),
            Err(_) => Vec::new(),
        };
        if images.is_empty() {
            images.push(Self::default());
        }
        Ok(images)
    }

    /// A value, unless it is missing or None.
    pub(super) fn get(&self, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let value = self.0.as_ref().map_or(Ok(None), |metadata| metadata.get_item(key))?;
        Ok(value.filter(|value| !value.is_none()))
    }

    /// The names of the classes by their ids; the inner error if they are no dict.
    pub(super) fn class_names(&self) -> PyResult<Result<Option<Bound<'py, PyDict>>, Reason>> {
        let names = self.get("class_names")?.map(Bound::cast_into::<PyDict>);
        Ok(names.transpose().map_err(|_| Reason::ClassNameNotText))
    }

    /// The texts that all detections of the image share.
    ///
    /// They are tried here: what is no text raises inside, which must not happen while a view is alive.
    pub(super) fn texts<'a>(&self) -> PyResult<FrameTexts<'a, 'py>> {
        let mut text = String::new();
        let mut usable = |key| Ok::<_, PyErr>(self.get(key)?.filter(|value| read_text(value, &mut text)));
        Ok(FrameTexts {
            inference_id: RowText::Shared(usable("inference_id")?),
            prediction_type: RowText::Shared(usable("prediction_type")?),
        })
    }
}

/// A column of a prediction as an array, if it is a tensor; anything else as it is.
pub(super) fn column<'py>(prediction: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    let py = prediction.py();
    let column = prediction.getattr(name)?;
    if column.is_instance_of::<PyUntypedArray>() || column.getattr_opt(names::detach(py))?.is_none() {
        return Ok(column);
    }
    // Both return what shares the tensor's memory; from another device `cpu` copies.
    let tensor = column.call_method0(names::detach(py))?.call_method0(names::cpu(py))?;
    match tensor.call_method0(names::numpy(py)) {
        // NumPy has no type for bfloat16 and narrower floats; float32 holds them exactly.
        Err(error) if error.is_instance_of::<PyTypeError>(py) => {
            tensor.call_method0(names::float(py))?.call_method0(names::numpy(py))
        }
        array => array,
    }
}

/// The first dimension of a column, whose memory is not looked at.
pub(super) fn rows(prediction: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> PyResult<Option<usize>> {
    let Some(column) = prediction.getattr_opt(name)? else {
        return Ok(None);
    };
    match column.getattr_opt(names::shape(column.py()))? {
        Some(shape) if shape.len()? > 0 => shape.get_item(0)?.extract().map(Some),
        _ => Ok(None),
    }
}

fn observe_boxes(
    observation: &mut Observation<'_>,
    detections: &Bound<'_, PyAny>,
    model_id: &str,
    tally: &mut Tally,
) -> PyResult<Result<usize, Reason>> {
    let py = detections.py();
    // As elsewhere, all that may run Python code comes before the views that the frame is made of.
    let boxes = rows(detections, names::xyxy(py))?;
    if boxes == Some(0) {
        return Ok(Ok(0));
    }
    let confidences = match Held::confidences(Some(column(detections, names::confidence(py))?))? {
        Ok(confidences) => confidences,
        Err(reason) => return Ok(Err(reason)),
    };
    let ids = column(detections, names::class_id(py))?;
    let Ok(ids) = ids.cast::<PyUntypedArray>() else {
        return Ok(Err(Reason::ColumnShape));
    };
    let metadata = Metadata::of_image(detections)?;
    let names = match metadata.class_names()? {
        Ok(names) => names,
        Err(reason) => return Ok(Err(reason)),
    };
    let table = match name_table(ids, names.as_ref())? {
        Ok(table) => table,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut texts = metadata.texts()?;
    Ok((|| {
        let (column, number, swapped) = View::new(ids)?.numbers().ok_or(Reason::ClassIdInvalid)?;
        let names = Names::Ids { column, number, swapped, names: &table };
        let frame = Frame::new(boxes.unwrap_or(column.rows()), confidences.as_confidences()?, names)?;
        Ok(observation.observe(model_id, &frame, &mut texts, tally))
    })())
}

/// The class ids of a frame, each once and in ascending order, with their names.
fn name_table(
    ids: &Bound<'_, PyUntypedArray>,
    names: Option<&Bound<'_, PyDict>>,
) -> PyResult<Result<Vec<(i64, Name)>, Reason>> {
    if ids.ndim() != 1 {
        return Ok(Err(Reason::ColumnShape));
    }
    let distinct = match View::new(ids).map(|view| view.numbers()) {
        Ok(Some((column, number, swapped))) => unique_integers(&column, number, swapped),
        Ok(None) => return Ok(Err(Reason::ClassIdInvalid)),
        Err(reason) => return Ok(Err(reason)),
    };
    let table = distinct.into_iter().map(|id| {
        let name = names.map_or(Ok(None), |names| names.get_item(id))?;
        Ok((id, name.map_or(Err(Reason::ClassNameMissing), |name| class_name(&name))))
    });
    table.collect::<PyResult<_>>().map(Ok)
}
