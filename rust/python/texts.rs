//! Inference ids and prediction types, read for the winners of a frame.

use super::columns::{TextColumn, View};
use super::items::read_text;
use crate::{Texts, label};
use numpy::PyUntypedArray;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// Where one text of each row comes from.
pub(super) enum RowText<'a, 'py> {
    Missing,
    /// An array of text of fixed width.
    Array(&'a Bound<'py, PyUntypedArray>),
    Items(&'a Bound<'py, PyList>),
    /// The same for every row.
    Shared(Option<Bound<'py, PyAny>>),
}

impl<'a, 'py> RowText<'a, 'py> {
    pub(super) fn new(column: &'a TextColumn<'py>) -> Self {
        match column {
            TextColumn::Missing => Self::Missing,
            TextColumn::Items(items) => Self::Items(items),
            TextColumn::Array(array) => Self::Array(array),
        }
    }

    fn read(&self, row: usize, into: &mut String) -> bool {
        match self {
            Self::Missing | Self::Shared(None) => false,
            // Another thread may have reshaped the array since it was looked at first.
            Self::Array(array) => {
                View::new(array).ok().and_then(|view| view.text()).is_some_and(|(column, encoding)| {
                    row < column.rows() && label::read_text(encoding, column.row(row), into).is_some()
                })
            }
            Self::Items(items) => items.get_item(row).is_ok_and(|item| read_text(&item, into)),
            Self::Shared(Some(item)) => read_text(item, into),
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
