//! Texts of Python objects: class names, inference ids, prediction types.

use super::columns::{TextColumn, View};
use crate::label::{self, MAX_CHARS};
use crate::{Column, Encoding, Reason, Texts};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// The canonical form of an object that should be a class name.
pub(super) fn class_name(item: &Bound<'_, PyAny>) -> Result<Box<[u8]>, Reason> {
    let canonical = |text: &str| {
        let text = text.trim_end_matches('\0');
        if is_too_long(text) {
            return Err(Reason::ClassNameTooLong);
        }
        let mut canonical = Vec::with_capacity(4 * text.len());
        label::push_canonical(text, &mut canonical);
        Ok(canonical.into_boxed_slice())
    };
    if let Ok(text) = item.cast::<PyString>() {
        canonical(text.to_str().map_err(|_| Reason::ClassNameSurrogate)?)
    } else if let Ok(bytes) = item.cast::<PyBytes>() {
        canonical(std::str::from_utf8(bytes.as_bytes()).map_err(|_| Reason::ClassNameNotText)?)
    } else {
        Err(Reason::ClassNameNotText)
    }
}

pub(super) fn is_too_long(text: &str) -> bool {
    text.len() > MAX_CHARS && text.chars().count() > MAX_CHARS
}

/// Reads an object that should be an inference id or prediction type; false if it is none.
pub(super) fn read_object(item: &Bound<'_, PyAny>, into: &mut String) -> bool {
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

/// Where one text of each row comes from.
pub(super) enum RowText<'a, 'py> {
    Missing,
    Rows(Column<'a>, Encoding),
    Items(&'a Bound<'py, PyAny>),
    /// The same for every row.
    Shared(Option<Bound<'py, PyAny>>),
}

impl<'a, 'py> RowText<'a, 'py> {
    pub(super) fn new(column: &'a TextColumn<'py>) -> Result<Self, Reason> {
        Ok(match column {
            TextColumn::Missing => Self::Missing,
            TextColumn::Items(items, _) => Self::Items(items),
            TextColumn::Array(array) => {
                let (column, encoding) = View::new(array)?.text().ok_or(Reason::ColumnShape)?;
                Self::Rows(column, encoding)
            }
        })
    }

    fn read(&self, row: usize, into: &mut String) -> bool {
        match self {
            Self::Missing | Self::Shared(None) => false,
            Self::Rows(column, encoding) => label::read_text(*encoding, column.row(row), into).is_some(),
            Self::Items(items) => items.get_item(row).is_ok_and(|item| read_object(&item, into)),
            Self::Shared(Some(item)) => read_object(item, into),
        }
    }
}

/// The texts of one frame.
pub(super) struct FrameTexts<'a, 'py> {
    pub(super) inference_id: RowText<'a, 'py>,
    pub(super) prediction_type: RowText<'a, 'py>,
}

impl Texts for FrameTexts<'_, '_> {
    fn inference_id(&mut self, row: usize, text: &mut String) -> bool {
        self.inference_id.read(row, text)
    }

    fn prediction_type(&mut self, row: usize, text: &mut String) -> bool {
        self.prediction_type.read(row, text)
    }
}
