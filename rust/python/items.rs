//! Single Python objects as class names, confidences and ids.

use super::names;
use crate::Reason;
use crate::label::{self, MAX_CHARS};
use numpy::PyUntypedArray;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat, PyString};

/// The canonical form of an object that should be a class name.
pub(super) fn class_name(item: &Bound<'_, PyAny>) -> Result<Box<[u8]>, Reason> {
    let text = class_text(item)?;
    let mut canonical = Vec::with_capacity(4 * text.len());
    label::push_canonical(text, &mut canonical);
    Ok(canonical.into_boxed_slice())
}

/// The text of an object that should be a class name, without NULs at its end.
#[inline]
pub(super) fn class_text<'a>(item: &'a Bound<'_, PyAny>) -> Result<&'a str, Reason> {
    // The check for exactly that type is the quicker one.
    let text = if let Ok(text) = item.cast_exact::<PyString>().or_else(|_| item.cast::<PyString>()) {
        text.to_str().map_err(|_| Reason::ClassNameSurrogate)?
    } else if let Ok(bytes) = item.cast::<PyBytes>() {
        std::str::from_utf8(bytes.as_bytes()).map_err(|_| Reason::ClassNameNotText)?
    } else {
        return Err(Reason::ClassNameNotText);
    };
    let text = text.trim_end_matches('\0');
    if is_too_long(text) { Err(Reason::ClassNameTooLong) } else { Ok(text) }
}

pub(super) fn is_too_long(text: &str) -> bool {
    text.len() > MAX_CHARS && text.chars().count() > MAX_CHARS
}

/// Reads an object that should be an inference id or prediction type; false if it is none.
pub(super) fn read_text(item: &Bound<'_, PyAny>, into: &mut String) -> bool {
    into.clear();
    let text = if let Ok(text) = item.cast::<PyString>() {
        text.to_str().ok()
    } else if let Ok(bytes) = item.cast::<PyBytes>() {
        std::str::from_utf8(bytes.as_bytes()).ok()
    } else {
        None
    };
    match text.map(|text| text.trim_end_matches('\0')) {
        Some(text) if !is_too_long(text) => {
            into.push_str(text);
            true
        }
        _ => false,
    }
}

/// The value of an object that should be a confidence; numeric text counts as its number.
#[inline]
pub(super) fn number(item: &Bound<'_, PyAny>) -> PyResult<Result<f64, Reason>> {
    match item.cast::<PyFloat>() {
        Ok(float) => Ok(Ok(float.value())),
        Err(_) => number_of_another_type(item),
    }
}

#[cold]
fn number_of_another_type(item: &Bound<'_, PyAny>) -> PyResult<Result<f64, Reason>> {
    match convert(item) {
        Err(error) if error.is_instance_of::<PyException>(item.py()) => Ok(Err(Reason::ConfidenceNotNumber)),
        value => value.map(|value| value.ok_or(Reason::ConfidenceNotNumber)),
    }
}

/// The value of anything that `float()` takes, unless it would lose what it is.
fn convert(item: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    let py = item.py();
    // NumPy's complex numbers and times convert to float as well. The types of other libraries have no such kind.
    let dtype = item.getattr_opt(names::dtype(py))?;
    if let Some(kind) = dtype.map_or(Ok(None), |dtype| dtype.getattr_opt(names::kind(py)))?
        && let Ok(kind) = kind.cast::<PyString>()
        && matches!(kind.to_str(), Ok("c" | "M" | "m"))
    {
        return Ok(None);
    }
    // A subclass converts as it thinks fit: a masked confidence is NaN, whatever is behind the mask.
    if item.is_exact_instance_of::<PyUntypedArray>() {
        // NumPy is about to give up converting an array of one element. What is in one of objects may be an array again, and so on.
        let item = item.call_method0(names::item(py))?;
        return if item.is_instance_of::<PyUntypedArray>() { Ok(None) } else { convert(&item) };
    }
    if item.is_instance_of::<PyString>() || item.is_instance_of::<PyBytes>() {
        return py.get_type::<PyFloat>().call1((item,))?.extract().map(Some);
    }
    item.extract().map(Some)
}
