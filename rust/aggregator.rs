//! The aggregator: the current window, and the drain that replaces it.
//!
//! # Limitations
//! A drain numbers its new window before it puts it in place. Of two drains that overlap, the later window may get the lower
//! number, so that a merge prefers it in ties.
//!
//! # Orderings
//! Windows are numbered by a relaxed counter; everything else is in [`crate::rotation`] and below.

#![allow(unsafe_code)]

use crate::frame::{Frame, Spelling};
use crate::journal::{Journal, Record, WindowJournal, next_number};
use crate::label::Encoding;
use crate::memo::Holder;
use crate::mutants::mutant;
use crate::recent::Recent;
use crate::record::WindowId;
use crate::reject::{Reason, Tally};
use crate::rotation::{Current, Pinned, Replaced};
use crate::snapshot::Snapshot;
use crate::statistics::{PartId, Statistics};
use crate::sync::unmodelled::AtomicBool;
use crate::sync::{AtomicU64, Ordering, thread_local};
use crate::window::{Class, FrameReduction, Head, Model, Texts, Window};
use std::cell::Cell;
use std::sync::{Arc, OnceLock};

/// Classes, and models, that a window holds unless told otherwise.
pub const DEFAULT_MAX_CLASSES: u64 = 100_000;

thread_local! {
    /// Taken for the time of one frame, so that a frame observed from within another one starts with memory of its own.
    static RECENT: Cell<Option<Box<Recent<Model, Class>>>> = const { Cell::new(None) };
}

/// Keeps the peak confidence of every class of every model until it is drained.
///
/// Any number of threads may observe and drain at once; nobody waits.
///
/// ```
/// use peakhold::{Aggregator, Confidences, Frame, Names, Tally, Texts};
///
/// struct NoTexts;
/// impl Texts for NoTexts {
///     fn inference_id(&mut self, _: usize, _: &mut String) -> bool { false }
///     fn prediction_type(&mut self, _: usize, _: &mut String) -> bool { false }
/// }
///
/// let aggregator = Aggregator::default();
/// let confidences = [Ok(0.5), Ok(0.75)];
/// let frame = Frame::new(2, Confidences::Values(&confidences), Names::Missing).unwrap();
/// aggregator.observe("project/3", &frame, &mut NoTexts, &mut Tally::default());
/// let snapshot = aggregator.drain();
/// let report = snapshot.report();
/// assert_eq!((report.len(), report[0].peak.confidence), (1, 0.75));
/// ```
pub struct Aggregator {
    number: Holder,
    current: Current<Window>,
    windows: AtomicU64,
    limit: u64,
    /// Whether the windows that begin count frames and detections.
    statistics: AtomicBool,
    /// Whether frames are counted: the current window has statistics, or the next one will.
    counting: AtomicBool,
    journals: OnceLock<Journals>,
}

impl Default for Aggregator {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_CLASSES)
    }
}

impl Aggregator {
    /// Makes an aggregator whose windows hold at most `limit` classes, counted per model, and as many models.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self::with_journals(limit, OnceLock::new())
    }

    /// Makes an aggregator whose windows also write their record highs to files.
    #[must_use]
    pub fn journaled(limit: u64, journal: Arc<Journal>, about: &[u8]) -> Self {
        Self::with_journals(limit, OnceLock::from(Journals::new(journal, about)))
    }

    /// Has the windows that begin from now on write their record highs to files, too, if none do so far.
    pub fn begin_journals(&self, journal: Arc<Journal>, about: &[u8]) {
        // An aggregator keeps the journal it has.
        let _ = self.journals.set(Journals::new(journal, about));
    }

    fn with_journals(limit: u64, journals: OnceLock<Journals>) -> Self {
        let current = Current::new(window(0, limit, false, journals.get()));
        let (statistics, counting) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { number: Holder::new(), current, windows: AtomicU64::new(1), limit, statistics, counting, journals }
    }

    /// Makes it one whose windows also have statistics.
    #[must_use]
    pub fn with_statistics(self) -> Self {
        self.set_statistics(true);
        let current = Current::new(window(0, self.limit, true, self.journals.get()));
        Self { current, ..self }
    }

    /// Whether the windows that begin from now on have statistics, or are to have.
    #[must_use]
    pub fn has_statistics(&self) -> bool {
        self.statistics.load(Ordering::Relaxed)
    }

    #[inline]
    fn is_counting(&self) -> bool {
        self.counting.load(Ordering::Relaxed)
    }

    /// Has the windows that begin from now on have statistics or not. The first of them may lack frames that other threads are observing at that moment.
    pub fn set_statistics(&self, statistics: bool) {
        self.statistics.store(statistics, Ordering::Relaxed);
        if statistics {
            self.counting.store(true, Ordering::Relaxed);
        }
    }

    /// The statistics of the open window so far, if it has any; what is still to come is missing.
    #[must_use]
    pub fn statistics(&self) -> Option<(PartId, Statistics)> {
        self.current.pin().statistics()
    }

    /// Likewise, with the journal of the window and what that calls it, if it has one.
    #[must_use]
    pub fn journaled_statistics(&self) -> Option<(Arc<Journal>, (WindowId, PartId, Statistics))> {
        let window = self.current.pin();
        let journal = window.journal()?;
        let (part, statistics) = window.statistics()?;
        Some((journal.journal().clone(), (journal.id(), part, statistics)))
    }

    /// Begins an observation, whose frames are taken at once and written to the journal at its end.
    #[must_use]
    pub const fn observation(&self) -> Observation<'_> {
        Observation { aggregator: self, unwritten: Vec::new(), is_counted: false }
    }

    /// Takes one frame of a model; returns the number of rows taken and counts the others in `tally`.
    pub fn observe(&self, model_id: &str, frame: &Frame<'_>, texts: &mut impl Texts, tally: &mut Tally) -> usize {
        self.observation().observe(model_id, frame, texts, tally)
    }

    /// Classes that have a place in the current window, counted per model.
    #[must_use]
    pub fn peaks(&self) -> u64 {
        self.current.pin().peaks()
    }

    /// Closes the current window, begins a new one and returns what the closed one held; its journal is removed.
    #[must_use]
    pub fn drain(&self) -> Snapshot {
        self.close().release()
    }

    /// Closes the current window like `drain` and begins a new one, but leaves it to the caller when to look into the closed one, and to
    /// remove its journal.
    ///
    /// That takes as long whatever the window holds.
    #[must_use]
    pub fn close(&self) -> Closed {
        let sequence = self.windows.fetch_add(1, Ordering::Relaxed);
        let statistics = self.has_statistics();
        let closed = Closed(self.current.replace(window(sequence, self.limit, statistics, self.journals.get())));
        if !statistics && self.counting.swap(false, Ordering::Relaxed) && self.has_statistics() {
            self.counting.store(true, Ordering::Relaxed); // switched on meanwhile
        }
        closed
    }
}

/// An observation in course. What its frames raised is written to the journal when it ends, and not while columns are looked at.
///
/// Whoever lets other threads wait meanwhile, such as those of an interpreter, asks [`may_block`](Self::may_block) and ends it by dropping it.
pub struct Observation<'a> {
    aggregator: &'a Aggregator,
    /// One for each window that the frames came to, mostly none.
    unwritten: Vec<Unwritten<'a>>,
    /// Whether a window has counted it as a frame.
    is_counted: bool,
}

/// What was raised in a window and is not in its journal yet.
struct Unwritten<'a> {
    window: Pinned<'a, Window>,
    record: Record,
}

impl Observation<'_> {
    /// Takes one frame of a model; returns the number of rows taken and counts the others in `tally`.
    pub fn observe(&mut self, model_id: &str, frame: &Frame<'_>, texts: &mut impl Texts, tally: &mut Tally) -> usize {
        let mut recent = take_recent();
        let reduction = recent.get(self.aggregator.number, model_id);
        reduction.reduce(frame, self.aggregator.is_counting(), tally);
        let head = Head { model_id, rows: frame.rows(), spelling: frame.names.spelling() };
        let taken = self.publish(&head, reduction, texts, tally);
        keep(recent);
        taken
    }

    /// Ends a frame of the observation and begins another one, as an image of several is.
    pub fn begin_frame(&mut self) {
        self.count();
        self.is_counted = false;
    }

    /// Counts the frame, unless a window that took something of it has done so.
    #[inline]
    fn count(&self) {
        if !self.is_counted && self.aggregator.is_counting() {
            while self.aggregator.current.pin().count_frame().is_err() {}
        }
    }

    /// Takes one frame of a model, whose rows `fill` adds one by one before it returns their texts.
    ///
    /// # Errors
    /// That of `fill`; nothing of the frame is taken then.
    pub fn observe_rows<T: Texts, E>(
        &mut self,
        model_id: &str,
        tally: &mut Tally,
        fill: impl FnOnce(&mut Rows<'_>) -> Result<T, E>,
    ) -> Result<usize, E> {
        let mut recent = take_recent();
        let reduction = recent.get(self.aggregator.number, model_id);
        let spelling = Spelling::Text(Encoding::Utf8);
        reduction.begin(spelling, self.aggregator.is_counting());
        reduction.expect_hints();
        let mut rows = Rows { reduction, tally, count: 0 };
        let filled = fill(&mut rows);
        let rows = rows.count;
        let taken =
            filled.map(|mut texts| self.publish(&Head { model_id, rows, spelling }, reduction, &mut texts, tally));
        keep(recent);
        taken
    }

    /// Whether ending the observation may have to wait for a disk.
    #[inline]
    #[must_use]
    pub fn may_block(&self) -> bool {
        self.unwritten.iter().any(|unwritten| unwritten.window.journal().is_some_and(|journal| journal.may_block()))
    }

    /// Writes what was raised; kept out of the way of the many frames that raise nothing.
    #[cold]
    fn write(&mut self) {
        for Unwritten { window, record } in self.unwritten.drain(..) {
            if let Some(journal) = window.journal() {
                // SAFETY: the window that this was raised in is pinned, and this is its journal.
                unsafe { record.write(journal) };
            }
        }
    }

    /// Publishes the winners of a frame; returns the number of rows that found a place.
    #[inline]
    fn publish(
        &mut self,
        head: &Head<'_>,
        reduction: &mut FrameReduction,
        texts: &mut impl Texts,
        tally: &mut Tally,
    ) -> usize {
        let (mut next, mut taken) = (0, 0);
        loop {
            let window = self.aggregator.current.pin();
            if !self.is_counted {
                if window.count_frame().is_err() {
                    continue;
                }
                self.is_counted = true;
            }
            let mut record = None;
            let outcome = window.observe(head, reduction, &mut next, (texts, tally, &mut record));
            if let Some(record) = record {
                self.unwritten.push(Unwritten { window, record });
            }
            match outcome {
                Ok(rows) => break taken + rows,
                Err((_closed, rows)) if mutant!("refused_forgotten") => break taken + rows,
                Err((_closed, rows)) => taken += rows,
            }
        }
    }
}

impl Drop for Observation<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.unwritten.is_empty() {
            self.write();
        }
        self.count();
    }
}

/// The thread's memory. One that ends has none any more, but may still observe.
#[inline]
#[allow(clippy::unnecessary_box_returns, reason = "one word is put back quicker than five")]
fn take_recent() -> Box<Recent<Model, Class>> {
    RECENT.try_with(Cell::take).ok().flatten().unwrap_or_default()
}

/// Keeps the memory for the thread's next frame; without a place to keep it, it is freed.
#[inline]
fn keep(mut recent: Box<Recent<Model, Class>>) {
    recent.shrink();
    let _ = RECENT.try_with(|kept| kept.set(Some(recent)));
}

/// A frame whose rows are added one by one.
pub struct Rows<'a> {
    reduction: &'a mut FrameReduction,
    tally: &'a mut Tally,
    count: usize,
}

impl Rows<'_> {
    /// Adds a row, or counts why it cannot be used.
    #[inline]
    pub fn push(&mut self, confidence: Result<f64, Reason>, name: Result<&str, Reason>) {
        // Most classifications list their classes in the same order.
        self.reduction.push(self.count, confidence, name.map(str::as_bytes), self.count, self.tally);
        self.count += 1;
    }
}

/// Where the windows of an aggregator are written down.
struct Journals {
    journal: Arc<Journal>,
    /// Number of the aggregator within the process.
    aggregator: u64,
    about: Arc<[u8]>,
}

impl Journals {
    fn new(journal: Arc<Journal>, about: &[u8]) -> Self {
        Self { journal, aggregator: next_number(), about: about.into() }
    }
}

fn window(sequence: u64, limit: u64, statistics: bool, journals: Option<&Journals>) -> Window {
    let journal = journals.map(|journals| {
        Arc::new(WindowJournal::new(
            journals.journal.clone(),
            WindowId { aggregator: journals.aggregator, window: sequence },
            journals.about.clone(),
        ))
    });
    Window::new(sequence, limit, statistics, journal)
}

/// A window that is no longer observed, but by those who were at it when it was closed.
pub struct Closed(Replaced<Window>);

impl Closed {
    /// Takes out what the window holds. Whoever was at it and has not found a place yet goes to the current window.
    #[must_use]
    pub fn empty(self) -> Snapshot {
        self.0.close()
    }

    /// Takes out what the window holds for somebody who keeps it, and removes its journal.
    ///
    /// A file that cannot be removed stays, and would be recovered as if the window had been lost.
    #[must_use]
    pub fn release(self) -> Snapshot {
        let journal = self.journal();
        let snapshot = self.empty();
        if let Some(journal) = journal {
            let _ = journal.remove();
        }
        snapshot
    }

    /// Whether nobody observes the window any more: all that was raised in it is written to its journal.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.is_alone()
    }

    /// Whether the window has statistics.
    #[must_use]
    pub fn has_statistics(&self) -> bool {
        self.0.has_statistics()
    }

    /// The file of the window's record highs, if it has one.
    #[must_use]
    pub fn journal(&self) -> Option<Arc<WindowJournal>> {
        self.0.journal().cloned()
    }

    /// Classes that have a place, counted per model.
    #[must_use]
    pub fn peaks(&self) -> u64 {
        self.0.peaks()
    }
}

#[cfg(all(test, not(peakhold_loom)))]
mod tests {
    use super::*;
    use crate::reject::Rejections;
    use crate::{Confidences, Names};
    use std::sync::LazyLock;

    /// Texts that are missing; reading the first one drains the window, as another thread might at that moment.
    struct Draining<'a> {
        aggregator: &'a Aggregator,
        reads: usize,
    }

    impl Texts for Draining<'_> {
        fn inference_id(&mut self, _: usize, _: &mut String) -> bool {
            self.reads += 1;
            if self.reads == 1 {
                assert!(self.aggregator.drain().is_empty());
            }
            false
        }

        fn prediction_type(&mut self, _: usize, _: &mut String) -> bool {
            false
        }
    }

    fn observe(aggregator: &Aggregator, texts: &mut impl Texts, tally: &mut Tally) -> usize {
        let frame = Frame::new(1, Confidences::Values(&[Ok(0.5)]), Names::Missing).expect("one row");
        aggregator.observe("m", &frame, texts, tally)
    }

    #[test]
    fn a_row_that_moves_to_the_next_window_is_counted_once() {
        let aggregator = Aggregator::default();
        let mut texts = Draining { aggregator: &aggregator, reads: 0 };
        let mut tally = Tally::default();
        assert_eq!(observe(&aggregator, &mut texts, &mut tally), 1);
        assert_eq!((texts.reads, aggregator.drain().len()), (2, 1));
        let rejections = Rejections::default();
        rejections.add(&tally, |_| ());
        let wanted = [Reason::ClassNameMissing, Reason::InferenceIdInvalid, Reason::PredictionTypeInvalid];
        assert_eq!(rejections.counts().collect::<Vec<_>>(), wanted.map(|reason| (reason, 1)));
    }

    #[test]
    fn a_window_is_complete_once_its_last_observer_has_left() {
        /// Closes the window while it is observed.
        struct Closing<'a>(&'a Aggregator, Option<Closed>);

        impl Texts for Closing<'_> {
            fn inference_id(&mut self, _: usize, _: &mut String) -> bool {
                self.1.get_or_insert_with(|| self.0.close());
                assert!(self.1.as_ref().is_some_and(|closed| !closed.is_complete()));
                false
            }

            fn prediction_type(&mut self, _: usize, _: &mut String) -> bool {
                false
            }
        }

        let directory = std::env::temp_dir().join(format!("peakhold-complete-{}", std::process::id()));
        let settings = crate::JournalSettings { directory, sync: false, limit: u64::MAX };
        let aggregator = Aggregator::journaled(u64::MAX, Arc::new(Journal::new(settings)), b"");
        let mut texts = Closing(&aggregator, None);
        let frame = Frame::new(1, Confidences::Values(&[Ok(0.5)]), Names::Missing).expect("one row");
        aggregator.observe("m", &frame, &mut texts, &mut Tally::default());
        let closed = texts.1.expect("it was closed");
        let journal = closed.journal().expect("a journal");
        assert!(closed.is_complete() && !journal.is_complete());
        assert_eq!(closed.empty().len(), 1);
        assert!(journal.is_complete());
        journal.remove().expect("our own file");
    }

    #[test]
    fn a_thread_may_observe_while_it_ends() {
        static AGGREGATOR: LazyLock<Aggregator> = LazyLock::new(Aggregator::default);
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                // A panic here would end the process.
                observe(&AGGREGATOR, &mut Draining { aggregator: &AGGREGATOR, reads: 1 }, &mut Tally::default());
            }
        }
        thread_local! {
            static EARLY: Last = const { Last };
            static LATE: Last = const { Last };
        }
        std::thread::spawn(|| {
            // Whichever way the destructors run, one of these two is dropped after the memory of `observe`.
            EARLY.with(|_| ());
            observe(&AGGREGATOR, &mut Draining { aggregator: &AGGREGATOR, reads: 1 }, &mut Tally::default());
            LATE.with(|_| ());
        })
        .join()
        .expect("no panic");
        assert_eq!(AGGREGATOR.drain().len(), 1);
    }
}
