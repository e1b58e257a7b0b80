//! Inference ids and prediction types, read for the winners of a frame.

use super::columns::{TextColumn, View};
use super::items::read_text;
use crate::{Column, Encoding, Reason, Texts, label};
use pyo3::prelude::*;
use pyo3::types::PyList;

/// Where one text of each row comes from.
pub(super) enum RowText<'a, 'py> {
    Missing,
    Rows(Column<'a>, Encoding),
    Items(&'a Bound<'py, PyList>),
    /// The same for every row.
    Shared(Option<Bound<'py, PyAny>>),
}

impl<'a, 'py> RowText<'a, 'py> {
    pub(super) fn new(column: &'a TextColumn<'py>) -> Result<Self, Reason> {
        Ok(match column {
            TextColumn::Missing => Self::Missing,
            TextColumn::Items(items) => Self::Items(items),
            TextColumn::Array(array) => {
                let (column, encoding) = View::new(array)?.text().ok_or(Reason::ColumnShape)?;
                Self::Rows(column, encoding)
            }
        })
    }

    fn read(&self, row: usize, into: &mut String) -> bool {
        match self {
            Self::Missing | Self::Shared(None) => false,
            Self::Rows(column, encoding) => {
                // Another thread may have reshaped the array since its length was checked.
                row < column.rows() && label::read_text(*encoding, column.row(row), into).is_some()
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
