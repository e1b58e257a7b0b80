//! One window: the models it saw, their classes, and the peak of each.
//!
//! Nothing here is removed while the window is open, and it never refers to a frame: memory grows with classes and
//! models only. A drain closes it place by place (see [`crate::trie`] and [`crate::peak`]); what arrives at a closed
//! place is told so and taken to the current window by [`crate::aggregator`].
//!
//! # Limitations
//! * A place is reserved before a class is added. While observers compete for the last places of a window, one may be refused although
//!   its class has, or would have had, a place; it is counted like any other excess.
//! * Statistics of a class are added before its peak is raised, and a drain closes the peak first. If it comes in between, the detections count in this window, and
//!   the peak, which the observer takes along, is in the next one. A frame that overlaps a drain may count in one window, and its detections, with
//!   the frame of their class, in the next; so may two class ids of one name.
//! * An observer lowers `first` before it raises the peak. If the drain closes the slot in between, the observation itself goes to the
//!   next window, and the place of its class in this window's order may still stem from it.
//!
//! # Orderings
//! All counters are relaxed: ordinals only have to differ, and `first` is read by the drain after it closed the class's slot,
//! which orders it after every observation that the slot took. One that raised nothing and overlaps the drain may be missed by it.

#![allow(unsafe_code)]

use crate::cells::{Cells, Keyed, Peak};
use crate::counter::{Added, Counter, FrameCounts, Frames, Numbers};
use crate::frame::Spelling;
use crate::journal::{Highs, Journaled, Record, WindowJournal};
use crate::label;
use crate::memo::Holder;
use crate::peak::{PeakSlot, Raised};
use crate::reduction::{Reduction, Winner};
use crate::reject::{Reason, Tally};
use crate::seed::Fast;
use crate::snapshot::{ClassPeak, Place, Snapshot};
use crate::statistics::{PartId, Room, Statistics};
use crate::sync::{AtomicU64, Ordering};
use crate::trie::{Closed, Trie, hash};
use std::collections::HashSet;
use std::sync::Arc;

/// Bytes of text that a window holds, but for what observers add that find it full at the same moment.
const MOST_TEXT: u64 = 64 << 20;

/// Where the texts of a frame's winners come from; only those that raise a peak are asked for.
pub trait Texts {
    /// Reads the inference id of a row into `text`; false if it is missing or unusable.
    fn inference_id(&mut self, row: usize, text: &mut String) -> bool;

    /// Reads the prediction type of a row into `text`; false if it is missing or unusable.
    fn prediction_type(&mut self, row: usize, text: &mut String) -> bool;
}

/// One class of a model.
pub(crate) struct Class {
    /// Arrival ordinal of the first detection seen.
    first: AtomicU64,
    peak: PeakSlot,
    counter: Counter,
    journaled: Journaled,
}

impl Class {
    /// Whether a winner raises nothing here, for sure; its arrival is taken in.
    #[inline]
    fn has(&self, winner: &Winner<Self>, before: u64, highs: &Highs<'_>) -> bool {
        let first = before + winner.first as u64;
        if first < self.first.load(Ordering::Relaxed) {
            self.first.fetch_min(first, Ordering::Relaxed);
        }
        self.peak.is_known_to_reach(winner.confidence) && !highs.lack(&self.journaled, winner.confidence)
    }
}

/// One model of a window, which keeps its classes in place as long as it lives.
pub(crate) struct Model {
    number: Holder,
    ordinal: u64,
    arrivals: AtomicU64,
    classes: Trie<Class>,
}

/// A frame reduced for a window.
pub(crate) type FrameReduction = Reduction<Model, Class>;

/// What a window has to know of a frame beside its winners.
pub(crate) struct Head<'a> {
    pub(crate) model_id: &'a str,
    /// Rows, usable or not.
    pub(crate) rows: usize,
    pub(crate) spelling: Spelling<'a>,
}

/// How the names of a frame are spelled, and the arrival ordinal that its rows count from.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    spelling: &'a Spelling<'a>,
    before: u64,
}

/// Why something found no place in a window.
enum Refusal {
    Closed,
    Rejected(Reason),
}

impl From<Closed> for Refusal {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// The peaks of every class of every model since the last drain.
pub(crate) struct Window {
    number: Holder,
    sequence: u64,
    limit: u64,
    models: Trie<Model>,
    model_count: AtomicU64,
    next_model: AtomicU64,
    class_count: AtomicU64,
    /// Bytes of names and of the texts of peaks.
    text: AtomicU64,
    cells: Cells<Keyed>,
    counted: Option<Box<Counted>>,
    journal: Option<Arc<WindowJournal>>,
}

/// What a window has for its statistics.
struct Counted {
    frames: Frames,
    cells: Cells<Numbers>,
    room: Room,
}

/// What the winners of a frame share while they are counted.
struct Seen {
    /// A cell that is nobody else's.
    spare: Option<u32>,
    /// The classes of the frame, if several winners may be of one.
    classes: Option<HashSet<*const Class, Fast>>,
}

impl Seen {
    fn of(spelling: &Spelling<'_>) -> Self {
        // Class ids may share a name.
        let classes = matches!(spelling, Spelling::Ids { .. }).then(HashSet::default);
        Self { spare: None, classes }
    }
}

impl Counted {
    fn add(
        &self,
        class: &Class,
        counts: &FrameCounts,
        rows: usize,
        seen: &mut Seen,
        tally: &mut Tally,
    ) -> Result<(), Refusal> {
        let is_first = seen.classes.as_mut().is_none_or(|classes| classes.insert(class));
        let admit = || self.room.take(PER_CLASS);
        match class.counter.add(&self.cells, &mut seen.spare, (counts, rows, is_first), admit) {
            Added::Closed => return Err(Refusal::Closed),
            Added::Refused => tally.add(Reason::StatisticsTooLarge, 1),
            Added::Yes | Added::No => {}
        }
        Ok(())
    }
}

/// Bytes that the statistics of a class take in an open window, and then in a snapshot, estimated.
const PER_CLASS: usize = 700;

impl Drop for Window {
    fn drop(&mut self) {
        // Observers write what they raised before they leave, and the last of them is gone.
        if let Some(journal) = &self.journal {
            journal.complete();
        }
    }
}

impl Window {
    pub(crate) fn new(sequence: u64, limit: u64, statistics: bool, journal: Option<Arc<WindowJournal>>) -> Self {
        let counted = || Box::new(Counted { frames: Frames::new(), cells: Cells::new(), room: Room::default() });
        Self {
            number: Holder::new(),
            sequence,
            limit,
            models: Trie::new(),
            model_count: AtomicU64::new(0),
            next_model: AtomicU64::new(0),
            class_count: AtomicU64::new(0),
            text: AtomicU64::new(0),
            cells: Cells::new(),
            counted: statistics.then(counted),
            journal,
        }
    }

    /// Counts a frame, if frames are counted.
    ///
    /// # Errors
    /// If the window was drained meanwhile: the frame is the current one's.
    #[inline]
    pub(crate) fn count_frame(&self) -> Result<(), Closed> {
        if self.counted.as_ref().is_none_or(|counted| counted.frames.add()) { Ok(()) } else { Err(Closed) }
    }

    pub(crate) fn journal(&self) -> Option<&Arc<WindowJournal>> {
        self.journal.as_ref()
    }

    pub(crate) const fn has_statistics(&self) -> bool {
        self.counted.is_some()
    }

    /// Classes that have a place, counted per model.
    pub(crate) fn peaks(&self) -> u64 {
        self.class_count.load(Ordering::Relaxed)
    }

    /// Takes the winners of a frame from number `next` on; returns how many rows found a place.
    ///
    /// What is to be written to the journal, before the observation ends, is put into `unwritten`.
    ///
    /// # Errors
    /// If the window was drained meanwhile: `next` is then the first winner that did not find its place.
    pub(crate) fn observe(
        &self,
        &Head { model_id, rows, ref spelling }: &Head<'_>,
        reduction: &mut FrameReduction,
        next: &mut usize,
        (texts, tally, unwritten): (&mut impl Texts, &mut Tally, &mut Option<Record>),
    ) -> Result<usize, (Closed, usize)> {
        let mut taken = 0;
        let model = match self.known_model(model_id, reduction) {
            Ok(model) => model,
            Err(Refusal::Closed) => return Err((Closed, taken)),
            Err(Refusal::Rejected(reason)) => {
                tally.add(reason, 1);
                return Ok(taken);
            }
        };
        let before = model.arrivals.fetch_add(rows as u64, Ordering::Relaxed);
        let arrival = Arrival { spelling, before };
        let mut highs = Highs::new(self.journal.as_deref(), model.ordinal, model_id, unwritten);
        let closed = match self.counted.as_deref() {
            None => {
                self.walk(model, arrival, reduction, next, &mut taken, (texts, tally, &mut highs), |_, _, _| Ok(()))
            }
            Some(counted) => {
                let mut seen = Seen::of(spelling);
                let count = |reduction: &mut FrameReduction, number, tally: &mut Tally| {
                    self.count(counted, model, arrival, (reduction, number), &mut seen, tally)
                };
                let closed = self.walk(model, arrival, reduction, next, &mut taken, (texts, tally, &mut highs), count);
                seen.spare.into_iter().for_each(|spare| counted.cells.release(spare));
                closed
            }
        };
        closed.map(|()| taken).map_err(|closed| (closed, taken))
    }

    /// Takes winners in one by one, each of which is counted before.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        clippy::too_many_arguments,
        reason = "one loop for windows that count, and one for those that do not"
    )]
    fn walk(
        &self,
        model: &Model,
        arrival: Arrival<'_>,
        reduction: &mut FrameReduction,
        next: &mut usize,
        taken: &mut usize,
        (texts, tally, highs): (&mut impl Texts, &mut Tally, &mut Highs<'_>),
        mut count: impl FnMut(&mut FrameReduction, usize, &mut Tally) -> Result<(), Refusal>,
    ) -> Result<(), Closed> {
        while *next < reduction.winners() {
            let counted = count(reduction, *next, tally);
            let (winner, name) = reduction.winner(*next);
            // SAFETY: classes stay where they are as long as their model lives.
            let known = unsafe { winner.class.get(model.number) };
            // Most winners raise nothing in a class that the thread found for its last frame of the model.
            if counted.is_ok() && known.is_some_and(|class| class.has(winner, arrival.before, highs)) {
                *taken += winner.rows;
            } else {
                match counted.and_then(|()| self.take(model, known, arrival, winner, name, (texts, tally, highs))) {
                    Ok(()) => *taken += winner.rows,
                    Err(Refusal::Rejected(reason)) => tally.add(reason, u32::try_from(winner.rows).unwrap_or(u32::MAX)),
                    Err(Refusal::Closed) => return Err(Closed),
                }
            }
            *next += 1;
        }
        Ok(())
    }

    /// Adds what was counted of a winner to its class, unless another window has it.
    #[inline(never)]
    fn count(
        &self,
        counted: &Counted,
        model: &Model,
        arrival: Arrival<'_>,
        (reduction, number): (&mut FrameReduction, usize),
        seen: &mut Seen,
        tally: &mut Tally,
    ) -> Result<(), Refusal> {
        let Some((winner, name, counts)) = reduction.uncounted(number) else { return Ok(()) };
        // SAFETY: classes stay where they are as long as their model lives.
        let known = unsafe { winner.class.get(model.number) };
        let class = self.find(model, known, arrival, winner, name)?;
        counted.add(class, counts, winner.rows, seen, tally)?;
        reduction.set_counted(number + 1);
        Ok(())
    }

    /// The class of a winner, which is made if it is new.
    fn find<'a>(
        &'a self,
        model: &'a Model,
        known: Option<&'a Class>,
        arrival: Arrival<'_>,
        winner: &mut Winner<Class>,
        name: &mut Vec<u8>,
    ) -> Result<&'a Class, Refusal> {
        if let Some(class) = known {
            return Ok(class);
        }
        let name = match arrival.spelling.name(&winner.name, name) {
            Err(Reason::ClassNameMissing) => &[],
            name => name.map_err(Refusal::Rejected)?,
        };
        let class = self.class(model, name, arrival.before + winner.first as u64)?;
        winner.class.set(model.number, class);
        Ok(class)
    }

    /// Takes a winner in whose class is not known, or which most likely raises it.
    #[inline(never)]
    fn take<'a>(
        &'a self,
        model: &'a Model,
        known: Option<&'a Class>,
        arrival: Arrival<'_>,
        winner: &mut Winner<Class>,
        name: &mut Vec<u8>,
        (texts, tally, highs): (&mut impl Texts, &mut Tally, &mut Highs<'_>),
    ) -> Result<(), Refusal> {
        let class = self.find(model, known, arrival, winner, name)?;
        if class.has(winner, arrival.before, highs) {
            return Ok(());
        }
        self.raise(class, arrival, winner, texts, tally, highs)
    }

    fn raise(
        &self,
        class: &Class,
        Arrival { spelling, before }: Arrival<'_>,
        winner: &Winner<Class>,
        texts: &mut impl Texts,
        tally: &mut Tally,
        highs: &mut Highs<'_>,
    ) -> Result<(), Refusal> {
        let (mut bad_id, mut bad_type, mut excess) = (0, 0, 0);
        let mark = highs.mark();
        let mut fill = |peak: &mut Peak, highs: &mut Highs<'_>| {
            peak.arrival = before + winner.row as u64;
            if self.text.load(Ordering::Relaxed) >= MOST_TEXT {
                peak.inference_id.clear();
                peak.prediction_type.clear();
                excess = 1;
            } else {
                if !texts.inference_id(winner.row, &mut peak.inference_id) {
                    peak.inference_id.clear();
                    bad_id = 1;
                }
                if !texts.prediction_type(winner.row, &mut peak.prediction_type) {
                    peak.prediction_type.clear();
                    bad_type = 1;
                }
            }
            let class_name = || spelling.name(&winner.name, &mut Vec::new()).map(label::text).unwrap_or_default();
            highs.add(&class.journaled, class_name, class.first.load(Ordering::Relaxed), peak);
        };
        let raised = class.peak.raise(&self.cells, winner.confidence, |peak| {
            let held = peak.text_bytes();
            fill(peak, highs);
            let grown = peak.text_bytes().wrapping_sub(held);
            if grown != 0 {
                // A cell is used again, and keeps its memory: mostly nothing grows.
                self.text.fetch_add(grown, Ordering::Relaxed);
            }
        });
        if raised == Raised::No && highs.lack(&class.journaled, winner.confidence) {
            // Another observer was faster, and its record may not have been written yet.
            fill(&mut Peak { confidence: winner.confidence, ..Peak::default() }, highs);
        }
        if raised == Raised::Closed {
            // The current window will read the texts again, count what is wrong with them, and write the peak down.
            highs.take_back(mark);
            return Err(Refusal::Closed);
        }
        let invalid = [
            (Reason::InferenceIdInvalid, bad_id),
            (Reason::PredictionTypeInvalid, bad_type),
            (Reason::TooMuchText, excess),
        ];
        for (reason, rows) in invalid {
            if rows > 0 {
                tally.add(reason, rows);
            }
        }
        Ok(())
    }

    /// The model of this frame, which the thread most likely found for its last frame of that model.
    #[inline]
    fn known_model(&self, model_id: &str, reduction: &mut FrameReduction) -> Result<&Model, Refusal> {
        // SAFETY: models stay where they are as long as their window lives.
        if let Some(model) = unsafe { reduction.model.get(self.number) } {
            return Ok(model);
        }
        let model = self.model(model_id)?;
        reduction.model.set(self.number, model);
        Ok(model)
    }

    fn model(&self, model_id: &str) -> Result<&Model, Refusal> {
        let limit =
            Limit { held: &self.model_count, most: self.limit, text: &self.text, excess: Reason::TooManyModels };
        find_or_add(&self.models, model_id.as_bytes(), &limit, || {
            let ordinal = self.next_model.fetch_add(1, Ordering::Relaxed);
            Ok(Model { number: Holder::new(), ordinal, arrivals: AtomicU64::new(0), classes: Trie::new() })
        })
    }

    fn class<'a>(&self, model: &'a Model, name: &[u8], first: u64) -> Result<&'a Class, Refusal> {
        let limit =
            Limit { held: &self.class_count, most: self.limit, text: &self.text, excess: Reason::TooManyClasses };
        find_or_add(&model.classes, name, &limit, || {
            label::validate(name)?;
            Ok(Class {
                first: AtomicU64::new(first),
                peak: PeakSlot::new(),
                counter: Counter::new(),
                journaled: Journaled::new(),
            })
        })
    }

    /// Closes the window and takes its peaks and statistics.
    pub(crate) fn close(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut statistics = Statistics::default();
        if let Some(counted) = &self.counted {
            // First, so that `statistics` notices a window that is being drained.
            statistics.frames = counted.frames.take();
        }
        self.models.close(|model_id, model| {
            let place = |arrival| Place { window: self.sequence, model: model.ordinal, arrival };
            let model_id = String::from_utf8_lossy(model_id);
            model.classes.close(|name, class| {
                if let Some(peak) = class.peak.take(&self.cells) {
                    let first = place(class.first.load(Ordering::Relaxed));
                    let at = place(peak.arrival);
                    snapshot.insert(&model_id, label::text(name), ClassPeak::new(first, at, peak));
                }
                if let Some(counted) = &self.counted {
                    match class.counter.take(&counted.cells) {
                        Ok(Some(class)) => statistics.insert(&model_id, label::text(name), &class),
                        Ok(None) => {}
                        Err(()) => statistics.without += 1,
                    }
                }
            });
        });
        if self.counted.is_some() {
            statistics.keep();
            snapshot.insert_part(PartId::new(self.number.get()), statistics);
        }
        snapshot
    }

    /// The statistics so far, with what is still to come missing; `None` if it has none, or was drained meanwhile.
    pub(crate) fn statistics(&self) -> Option<(PartId, Statistics)> {
        let counted = self.counted.as_ref()?;
        let mut statistics = Statistics::default();
        self.models.visit(|model_id, model| {
            let model_id = String::from_utf8_lossy(model_id);
            model.classes.visit(|name, class| {
                if let Some(class) = class.counter.read(&counted.cells) {
                    statistics.insert(&model_id, label::text(name), &class);
                }
            });
        });
        (statistics.frames, statistics.is_partial) = (counted.frames.read()?, true);
        Some((PartId::new(self.number.get()), statistics))
    }
}

/// A bound on how many values a window holds.
struct Limit<'a> {
    held: &'a AtomicU64,
    most: u64,
    text: &'a AtomicU64,
    excess: Reason,
}

impl Limit<'_> {
    /// Counts a key in.
    fn take(&self, key: &[u8]) -> Result<(), Reason> {
        let length = key.len() as u64;
        let held = self.held.fetch_add(1, Ordering::Relaxed);
        let text = self.text.fetch_add(length, Ordering::Relaxed);
        if held < self.most && text + length <= MOST_TEXT {
            return Ok(());
        }
        self.give_back(key);
        Err(if held < self.most { Reason::TooMuchText } else { self.excess })
    }

    /// Counts a key out that was not added.
    fn give_back(&self, key: &[u8]) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.text.fetch_sub(key.len() as u64, Ordering::Relaxed);
    }
}

/// The value of a key, made and counted if it is new and there is room.
fn find_or_add<'a, T>(
    map: &'a Trie<T>,
    key: &[u8],
    limit: &Limit<'_>,
    make: impl FnOnce() -> Result<T, Reason>,
) -> Result<&'a T, Refusal> {
    let hash = hash(key);
    if let Some(value) = map.get(hash, key) {
        return Ok(value);
    }
    limit.take(key).map_err(Refusal::Rejected)?;
    let outcome = make().map_err(Refusal::Rejected).and_then(|value| Ok(map.insert(hash, key, value)?));
    if !matches!(outcome, Ok((_, true))) {
        limit.give_back(key);
    }
    outcome.map(|(value, _)| value)
}
