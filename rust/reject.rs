//! Why a row, a frame or a text was not taken, and how often.
//!
//! # Orderings
//! All counts are relaxed: each stands for itself, and none of them guards memory.

use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicU64;

macro_rules! reasons {
    ($($variant:ident $name:literal $remedy:literal,)*) => {
        /// One way in which input can be unusable.
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = concat!("Counted as `", $name, "`.")] $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name under which the reason is counted.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What happened and what to do about it, for the log.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

reasons! {
    ConfidenceNan "confidence_nan"
        "a confidence is NaN; the row is skipped: check the model's output",
    ConfidenceInfinite "confidence_infinite"
        "a confidence is infinite; the row is skipped: check the model's output",
    ConfidenceOutOfRange "confidence_out_of_range"
        "a confidence is below 0 or above 1; it is reported as it is: check the model's output",
    ConfidenceNotNumber "confidence_not_a_number"
        "a confidence is not a real number; the row is skipped: pass floats",
    ClassNameNotText "class_name_not_text"
        "a class name is neither str nor UTF-8 bytes; the row is skipped: pass text in data[\"class_name\"]",
    ClassNameSurrogate "class_name_lone_surrogate"
        "a class name holds a lone surrogate or an invalid code point; the row is skipped: pass valid Unicode",
    ClassNameTooLong "class_name_too_long"
        "a class name is longer than 1,024 characters; the row is skipped: pass a label, not a document",
    ClassNameMissing "class_name_missing"
        "a class name is missing; it reads as \"\" and the row is kept: set data[\"class_name\"], the \"class\" of a classification, or the name of each class id",
    ClassIdInvalid "class_id_invalid"
        "a class id is no whole number, or the confidences do not reach it; the row is skipped: check the model's class ids",
    TooManyClasses "too_many_classes"
        "the window holds as many classes as PEAKHOLD_MAX_CLASSES allows; rows of further classes are skipped: raise it, or report more often",
    TooManyModels "too_many_models"
        "the window holds as many models as PEAKHOLD_MAX_CLASSES allows; frames of further models are skipped: check model_id",
    TooMuchText "too_much_text"
        "the names and ids of the window's classes take 64 MiB; rows of further classes are skipped, and further inference ids and prediction types read as \"\": pass labels as class names, or report more often",
    StatisticsTooLarge "statistics_too_large"
        "the statistics of all windows take 64 MiB; further classes have peaks and no statistics: pass labels as class names, or report more often",
    ColumnLengthsDiffer "column_lengths_differ"
        "the columns of a prediction differ in length; the frame is skipped: every column needs one row per detection",
    ColumnShape "column_shape"
        "a column of a prediction is not one-dimensional, or not an array or list; the frame is skipped: pass arrays of shape (n,)",
    PredictionUnreadable "prediction_unreadable"
        "reading a prediction raised an exception; the frame is skipped: pass sv.Detections or a classification dict",
    PredictionUnsupported "prediction_unsupported"
        "a prediction is neither sv.Detections nor a classification dict with \"predictions\"; its model gets its place, and no rows: pass what a model block returns",
    PredictionNotDict "prediction_not_a_dict"
        "an entry of a classification prediction is not a dict; the entry is skipped: pass {\"class\": ..., \"confidence\": ...}",
    ModelIdInvalid "model_id_invalid"
        "a model id holds a lone surrogate or is longer than 1,024 characters; the frame is skipped: check model_id",
    InferenceIdInvalid "inference_id_invalid"
        "an inference id is missing, or is no text of at most 1,024 characters; it reads as \"\" and the row is kept: set data[\"inference_id\"]",
    PredictionTypeInvalid "prediction_type_invalid"
        "a prediction type is missing, or is no text of at most 1,024 characters; it reads as \"\" and the row is kept: set data[\"prediction_type\"]",
}

const REASONS: usize = Reason::ALL.len();

/// Counts of one frame, kept without atomics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    counts: [u32; REASONS],
    any: bool,
}

impl Tally {
    /// Counts `rows` more rejections.
    pub fn add(&mut self, reason: Reason, rows: u32) {
        self.counts[reason as usize] = self.counts[reason as usize].saturating_add(rows);
        self.any = true;
    }

    /// Whether nothing was counted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.any
    }
}

/// Cumulative counts by reason.
pub struct Rejections {
    counts: [AtomicU64; REASONS],
}

impl Default for Rejections {
    fn default() -> Self {
        Self::new()
    }
}

impl Rejections {
    /// Makes counts that are all zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; REASONS] }
    }

    /// Adds a frame's counts and calls `first` for each reason that was never counted before.
    pub fn add(&self, tally: &Tally, mut first: impl FnMut(Reason)) {
        if !tally.any {
            return;
        }
        for &reason in Reason::ALL {
            let rows = u64::from(tally.counts[reason as usize]);
            if rows > 0 && self.counts[reason as usize].fetch_add(rows, Ordering::Relaxed) == 0 {
                first(reason);
            }
        }
    }

    /// Raises a count to this one if it is less; returns what it was.
    pub fn raise(&self, reason: Reason, rows: u64) -> u64 {
        self.counts[reason as usize].fetch_max(rows, Ordering::Relaxed)
    }

    /// The reasons counted so far, with their counts.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        let count = |&reason: &Reason| (reason, self.counts[reason as usize].load(Ordering::Relaxed));
        Reason::ALL.iter().map(count).filter(|&(_, rows)| rows > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_first_once() {
        let rejections = Rejections::default();
        let mut tally = Tally::default();
        tally.add(Reason::ConfidenceNan, 3);
        let mut firsts = Vec::new();
        rejections.add(&tally, |reason| firsts.push(reason));
        rejections.add(&tally, |reason| firsts.push(reason));
        assert_eq!(firsts, [Reason::ConfidenceNan]);
        assert_eq!(rejections.counts().collect::<Vec<_>>(), [(Reason::ConfidenceNan, 6)]);
    }
}
