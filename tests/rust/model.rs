//! Windows, merges and reports in their plainest form: every row is kept, and all are walked when a report is asked for.

use crate::support::{Line, Row};
use std::cmp::Ordering;

/// How the plain form consolidates; all but the first are wrong, and show that a comparison with it can fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    AsSpecified,
    TheLastOfEqualsWins,
    NegativeZeroIsLess,
    NanIsZero,
    EmptyNamesAreSkipped,
    ModelsWithoutRowsHaveNoPlace,
    ModelsKeepTheirPlaceForever,
    WindowsAreInTheOrderOfMerging,
    TheFirstPeakStays,
}

pub const WRONG_RULES: [Rule; 8] = [
    Rule::TheLastOfEqualsWins,
    Rule::NegativeZeroIsLess,
    Rule::NanIsZero,
    Rule::EmptyNamesAreSkipped,
    Rule::ModelsWithoutRowsHaveNoPlace,
    Rule::ModelsKeepTheirPlaceForever,
    Rule::WindowsAreInTheOrderOfMerging,
    Rule::TheFirstPeakStays,
];

/// The models of a window in the order of first sight, each with its rows in the order of arrival.
type Walk = Vec<(String, Vec<Row>)>;

/// An open window.
pub struct Plain {
    rule: Rule,
    open: Walk,
    sequence: u64,
}

/// Closed windows by their sequence.
#[derive(Clone)]
pub struct PlainSnapshot {
    rule: Rule,
    windows: Vec<(u64, Walk)>,
}

impl Plain {
    pub fn new(rule: Rule) -> Self {
        Self { rule, open: Walk::new(), sequence: 0 }
    }

    /// Takes the usable rows of a frame; returns how many those are.
    pub fn observe(&mut self, model: &str, rows: &[Row]) -> usize {
        let mut usable: Vec<Row> = rows.to_vec();
        if self.rule == Rule::NanIsZero {
            usable.iter_mut().filter(|row| row.1.is_nan()).for_each(|row| row.1 = 0.0);
        }
        usable.retain(|row| row.1.is_finite() && !(self.rule == Rule::EmptyNamesAreSkipped && row.0.is_empty()));
        let taken = usable.len();
        match self.open.iter_mut().find(|held| held.0 == model) {
            Some(held) => held.1.extend(usable),
            None if taken == 0 && self.rule == Rule::ModelsWithoutRowsHaveNoPlace => {}
            None => self.open.push((model.to_owned(), usable)),
        }
        taken
    }

    /// The number of classes, counted per model.
    pub fn peaks(&self) -> usize {
        let classes = |rows: &[Row]| {
            let mut names: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            names.len()
        };
        self.open.iter().map(|(_, rows)| classes(rows)).sum()
    }

    pub fn drain(&mut self) -> PlainSnapshot {
        let walk = std::mem::take(&mut self.open);
        if self.rule == Rule::ModelsKeepTheirPlaceForever {
            self.open = walk.iter().map(|(model, _)| (model.clone(), Vec::new())).collect();
        }
        self.sequence += 1;
        PlainSnapshot { rule: self.rule, windows: vec![(self.sequence, walk)] }
    }
}

impl PlainSnapshot {
    pub fn merge(&mut self, other: Self) {
        for window in other.windows {
            if self.windows.iter().all(|held| held.0 != window.0) {
                self.windows.push(window);
            }
        }
        if self.rule != Rule::WindowsAreInTheOrderOfMerging {
            self.windows.sort_by_key(|window| window.0);
        }
    }

    pub fn report(&self) -> Vec<Line> {
        let mut report: Vec<(Line, f64)> = Vec::new();
        let rows = self.windows.iter().flat_map(|(_, walk)| walk);
        for (model, (name, confidence, id)) in rows.flat_map(|(model, rows)| rows.iter().map(move |row| (model, row))) {
            let line = (model.clone(), name.clone(), confidence.to_bits(), id.clone());
            match report.iter_mut().find(|held| held.0.1 == *name) {
                None => report.push((line, *confidence)),
                Some(held) if self.is_better(*confidence, held.1) => *held = (line, *confidence),
                Some(_) => {}
            }
        }
        report.into_iter().map(|(line, _)| line).collect()
    }

    fn is_better(&self, one: f64, other: f64) -> bool {
        match self.rule {
            Rule::TheLastOfEqualsWins => one >= other,
            Rule::NegativeZeroIsLess => one.total_cmp(&other) == Ordering::Greater,
            Rule::TheFirstPeakStays => false,
            _ => one > other,
        }
    }
}
