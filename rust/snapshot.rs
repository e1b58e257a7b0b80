//! What a drained window held: merged with others, encoded, and put in the order of a report.
//!
//! A place is (window sequence, model ordinal, arrival ordinal). Merging keeps, for each class of each model, the
//! greatest confidence and among equals the smallest place, and the smallest place of first sight: maxima and minima of total orders, so
//! that merging is commutative, associative and idempotent, and windows can be merged in whatever order they arrive.
//!
//! A report names each class once, across all models. Walking the models in the order of first sight and each model's
//! detections in the order of arrival is walking places in ascending order; so a class stands where its smallest first place puts
//! it, and its representative is the greatest confidence, the smallest place deciding among equals.

use crate::cells::Peak;
use crate::memo::Holder;
use crate::memory;
use crate::mutants::mutant;
use crate::statistics::{ClassStatistics, PartId, Statistics};
use serde::{Deserialize, Serialize};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// Versions of [`Snapshot::encode`]'s layout, its first byte: of peaks alone, and of peaks and statistics.
const PEAKS: u8 = 1;
const STATISTICS: u8 = 2;

/// A peak, its entry in a tree that is two thirds full, and the heads of three blocks of the allocator.
const PER_PEAK: usize = (size_of::<ClassPeak>() + size_of::<String>()) * 3 / 2 + 48;

/// Where in the walk over all detections something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Sequence number of the window.
    pub window: u64,
    /// Ordinal of the model within the window.
    pub model: u64,
    /// Arrival ordinal of the detection within the model.
    pub arrival: u64,
}

/// The peak of one class of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassPeak {
    /// Where the class was first seen.
    pub first: Place,
    /// Where the peak was seen.
    pub at: Place,
    /// Confidence of the peak; finite.
    pub confidence: f64,
    /// Inference id of the peak.
    pub inference_id: String,
    /// Prediction type of the peak.
    pub prediction_type: String,
}

impl ClassPeak {
    pub(crate) fn new(first: Place, at: Place, peak: Peak) -> Self {
        let Peak { confidence, inference_id, prediction_type, .. } = peak;
        Self { first, at, confidence, inference_id, prediction_type }
    }

    /// Total order of peaks, the better one greater.
    fn compare(&self, other: &Self) -> Ordering {
        // Adding zero makes -0.0 equal to 0.0. Equal places with different contents cannot come from one window; the
        // rest makes the order total all the same, so that merging stays commutative whatever it is given.
        let rank = |peak: &Self| (peak.confidence + 0.0, Reverse(peak.at));
        let (mine, others) = (rank(self), rank(other));
        mine.0.total_cmp(&others.0).then_with(|| mine.1.cmp(&others.1)).then_with(|| {
            let rest = |peak: &Self| {
                (peak.confidence.is_sign_negative(), peak.inference_id.clone(), peak.prediction_type.clone())
            };
            rest(other).cmp(&rest(self))
        })
    }

    fn merge(&mut self, other: Self) {
        let first = self.first.min(other.first);
        if self.compare(&other) == Ordering::Less {
            *self = other;
        }
        self.first = first;
    }
}

/// One line of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Representative<'a> {
    /// The model that saw the peak.
    pub model_id: &'a str,
    /// The class, unique in its report.
    pub class_name: &'a str,
    /// The peak.
    pub peak: &'a ClassPeak,
}

impl<'a> Representative<'a> {
    fn line(self) -> Line<'a> {
        let Self { model_id, class_name, peak } = self;
        Line {
            model_id,
            class_name,
            confidence: peak.confidence,
            inference_id: &peak.inference_id,
            model_type: &peak.prediction_type,
        }
    }

    fn write_json(self, json: &mut Vec<u8>) {
        // Writing to memory cannot fail, and every field is text or a finite number.
        let _ = serde_json::to_writer(json, &self.line());
    }
}

/// A line of a report as the API takes it.
#[derive(Serialize)]
struct Line<'a> {
    model_id: &'a str,
    class_name: &'a str,
    confidence: f64,
    inference_id: &'a str,
    model_type: &'a str,
}

/// The peaks and the statistics of a window as a monitor of our own takes them.
#[derive(Serialize)]
struct WindowJson<'a> {
    peaks: Vec<Line<'a>>,
    parts: Vec<PartJson<'a>>,
}

/// What one window of one process adds to a monitor's sums.
#[derive(Serialize)]
struct PartJson<'a> {
    id: String,
    /// Number of the line that the message begins with: of one part several messages may come.
    piece: usize,
    is_partial: bool,
    frames: u64,
    without: u64,
    rejected: BTreeMap<&'a str, u64>,
    models: BTreeMap<&'a str, BTreeMap<&'a str, &'a ClassStatistics>>,
}

/// Bytes that are no encoded snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first byte names a layout that this version does not know.
    UnknownVersion(Option<u8>),
    /// The bytes do not hold what their layout says.
    Malformed,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownVersion(Some(version)) => {
                write!(
                    formatter,
                    "snapshot layout {version} is not known, only {PEAKS} and {STATISTICS}: upgrade peakhold"
                )
            }
            Self::UnknownVersion(None) => formatter.write_str("no bytes: a snapshot has at least a version"),
            Self::Malformed => formatter.write_str("the bytes are damaged, or no encoded snapshot"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Peaks by model id and class name, and the statistics of each window that is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    models: Models,
    parts: BTreeMap<PartId, Statistics>,
}

type Models = BTreeMap<String, BTreeMap<String, ClassPeak>>;

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.len() >= memory::LARGE {
            drop(std::mem::take(&mut self.models));
            memory::release();
        }
    }
}

impl Snapshot {
    /// Adds a peak, merging it with the one that the class may have.
    pub fn insert(&mut self, model_id: &str, class_name: String, peak: ClassPeak) {
        if !self.models.contains_key(model_id) {
            self.models.insert(model_id.to_owned(), BTreeMap::new());
        }
        if let Some(classes) = self.models.get_mut(model_id) {
            match classes.get_mut(&class_name) {
                Some(held) => held.merge(peak),
                None => drop(classes.insert(class_name, peak)),
            }
        }
    }

    /// Takes over everything that `other` holds.
    pub fn merge(&mut self, mut other: Self) {
        for (model_id, classes) in std::mem::take(&mut other.models) {
            for (class_name, peak) in classes {
                self.insert(&model_id, class_name, peak);
            }
        }
        for (id, statistics) in std::mem::take(&mut other.parts) {
            self.insert_part(id, statistics);
        }
    }

    /// Adds the statistics of a window, unless they are there and as complete.
    pub fn insert_part(&mut self, id: PartId, statistics: Statistics) {
        match self.parts.get_mut(&id) {
            Some(held) if held.rank() < statistics.rank() => *held = statistics,
            Some(_) => {}
            None => drop(self.parts.insert(id, statistics)),
        }
    }

    /// The statistics of each window that is in it, if statistics were wanted.
    #[must_use]
    pub const fn parts(&self) -> &BTreeMap<PartId, Statistics> {
        &self.parts
    }

    /// Likewise, to be completed.
    pub const fn parts_mut(&mut self) -> &mut BTreeMap<PartId, Statistics> {
        &mut self.parts
    }

    /// The statistics of all windows that are in it, added up.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut total = Statistics::default();
        self.parts.values().for_each(|part| total.add(part));
        total
    }

    /// The same snapshot with the statistics of all its windows added up as one part; only for windows that were never sent.
    #[must_use]
    pub fn with_one_part(mut self) -> Self {
        if self.parts.len() > 1 {
            let mut total = self.statistics();
            total.keep();
            self.parts = BTreeMap::from([(PartId::new(Holder::new().get()), total)]);
        }
        self
    }

    /// The same without peaks.
    #[must_use]
    pub fn without_peaks(&self) -> Self {
        Self { models: Models::default(), parts: self.parts.clone() }
    }

    /// The number of classes, counted per model.
    #[must_use]
    pub fn len(&self) -> usize {
        self.models.values().map(BTreeMap::len).sum()
    }

    /// The memory it takes: its texts, and an estimate for the rest.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts =
            |(name, peak): (&String, &ClassPeak)| name.len() + peak.inference_id.len() + peak.prediction_type.len();
        let peaks: usize = self.models.values().flatten().map(|class| PER_PEAK + texts(class)).sum();
        peaks + self.parts.values().map(Statistics::bytes).sum::<usize>()
    }

    /// The memory that so many peaks are expected to take.
    #[cfg(feature = "python")]
    pub(crate) const fn bytes_expected(peaks: usize) -> usize {
        // A UUID, a prediction type and a class name.
        peaks.saturating_mul(PER_PEAK + 36 + 16 + 16)
    }

    /// Whether nothing was observed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.models.values().all(BTreeMap::is_empty)
    }

    /// One representative per class, in report order.
    #[must_use]
    pub fn report(&self) -> Vec<Representative<'_>> {
        // Models mostly share their classes.
        let usual = self.models.values().map(BTreeMap::len).max().unwrap_or_default();
        let mut classes: HashMap<&str, (Place, Representative<'_>)> = HashMap::with_capacity(usual);
        for (model_id, peaks) in &self.models {
            for (class_name, peak) in peaks {
                let candidate = Representative { model_id, class_name, peak };
                classes
                    .entry(class_name)
                    .and_modify(|(first, best)| {
                        *first = peak.first.min(*first);
                        if best.peak.compare(peak) == Ordering::Less {
                            *best = candidate;
                        }
                    })
                    .or_insert((peak.first, candidate));
            }
        }
        let mut report: Vec<_> = classes.into_values().collect();
        report.sort_unstable_by_key(|&(first, line)| (first, line.class_name));
        report.into_iter().map(|(_, line)| line).collect()
    }

    /// The number of lines in the report.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.report().len()
    }

    /// Lines of the report, from one number to before another, as JSON objects with commas between them.
    #[must_use]
    pub fn report_json(&self, lines: Range<usize>) -> Vec<u8> {
        let report = self.report();
        let mut json = Vec::new();
        for line in report.get(lines).unwrap_or_default() {
            if !json.is_empty() {
                json.push(b',');
            }
            line.write_json(&mut json);
        }
        json
    }

    /// What a monitor of our own gets of these lines of the report, as members of a JSON object: the peak of each class by model, and the statistics of each window that is in it.
    ///
    /// Numbers of frames and of what was rejected, and statistics of classes that have no peak, go with the first line.
    #[must_use]
    pub fn window_json(&self, lines: Range<usize>) -> Vec<u8> {
        let report = self.report();
        let chosen: HashSet<&str> =
            report.get(lines.clone()).unwrap_or_default().iter().map(|line| line.class_name).collect();
        let known: HashSet<&str> = report.iter().map(|line| line.class_name).collect();
        let is_first = lines.start == 0;
        let goes = |class_name: &str| chosen.contains(class_name) || (is_first && !known.contains(class_name));
        let peaks = self.models.iter().flat_map(|(model_id, classes)| {
            let line = |(class_name, peak)| Representative { model_id, class_name, peak }.line();
            let chosen = &chosen;
            classes
                .iter()
                .filter(move |&(name, _)| chosen.contains(name.as_str()))
                .map(|(name, peak)| (name.as_str(), peak))
                .map(line)
        });
        let parts = self.parts.iter().map(|(id, part)| {
            let models = part.models.iter().map(|(model_id, classes)| {
                let classes: BTreeMap<&str, &ClassStatistics> = classes
                    .iter()
                    .filter(|&(name, _)| goes(name))
                    .map(|(name, statistics)| (name.as_str(), statistics))
                    .collect();
                (model_id.as_str(), classes)
            });
            PartJson {
                id: id.to_string(),
                piece: lines.start,
                is_partial: part.is_partial,
                frames: if is_first { part.frames } else { 0 },
                without: if is_first { part.without } else { 0 },
                rejected: if is_first {
                    part.rejected.iter().map(|(reason, &rows)| (reason.as_str(), rows)).collect()
                } else {
                    BTreeMap::new()
                },
                models: models.filter(|(_, classes)| !classes.is_empty()).collect(),
            }
        });
        let members = WindowJson { peaks: peaks.collect(), parts: parts.collect() };
        // Writing to memory cannot fail, and every field is text or a finite number.
        let mut json = serde_json::to_vec(&members).unwrap_or_default();
        json.pop();
        json.drain(..1.min(json.len()));
        json
    }

    /// The numbers at which the report is to be divided so that each part takes at most `limit` bytes as JSON, both ends included.
    ///
    /// A line that is longer than that is a part by itself.
    #[must_use]
    pub fn report_parts(&self, limit: usize) -> Vec<usize> {
        let report = self.report();
        let (mut ends, mut json, mut used) = (vec![0], Vec::new(), 0);
        for (number, line) in report.iter().enumerate() {
            json.clear();
            line.write_json(&mut json);
            if used > 0 && used + 1 + json.len() > limit {
                ends.push(number);
                used = 0;
            }
            used += json.len() + usize::from(used > 0);
        }
        ends.push(report.len());
        ends
    }

    /// The snapshot as bytes, for [`Snapshot::decode`] of this and later versions.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Writing to memory cannot fail, and every type here has an encoding.
        if self.parts.is_empty() {
            postcard::to_extend(&self.models, vec![PEAKS]).unwrap_or_default()
        } else {
            postcard::to_extend(&(&self.models, &self.parts), vec![STATISTICS]).unwrap_or_default()
        }
    }

    /// Reads what `encode` has written.
    ///
    /// # Errors
    /// If the bytes are anything else, or hold a confidence that is not finite.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&version, rest) = bytes.split_first().ok_or(DecodeError::UnknownVersion(None))?;
        let read = match version {
            PEAKS => postcard::take_from_bytes(rest).map(|(models, rest)| (models, BTreeMap::new(), rest)),
            STATISTICS => postcard::take_from_bytes(rest).map(|((models, parts), rest)| (models, parts, rest)),
            unknown => return Err(DecodeError::UnknownVersion(Some(unknown))),
        };
        let (models, parts, rest): (Models, _, _) = read.map_err(|_| DecodeError::Malformed)?;
        let snapshot = Self { models, parts };
        let mut peaks = snapshot.models.values().flat_map(BTreeMap::values);
        let sound = snapshot.parts.values().all(Statistics::is_sound);
        if rest.is_empty() && sound && peaks.all(|peak| peak.confidence.is_finite() || mutant!("misread_confidence")) {
            Ok(snapshot)
        } else {
            Err(DecodeError::Malformed)
        }
    }
}
