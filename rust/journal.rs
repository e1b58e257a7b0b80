//! The journal of open windows: what raises their peaks, written to files before `observe` returns.
//!
//! A process that is killed loses its memory, and with it the open windows. What it has handed to the system with `write`
//! stays. New maxima are rare, some six per class in 150 frames, so appending only these costs most frames nothing.
//! Those of one frame make one record and mostly one call; the layout is in [`crate::record`], reading it in [`crate::recovery`].
//!
//! All windows of a process share one [`Journal`], whose segments have at most 4 MiB each, of which one is open: descriptors do not grow with windows.
//! It is a log: what says that a window was committed stands behind all that was written of it, and segments are removed in the order in which they were made,
//! each as soon as no window that is not committed began in it. A window that lives long would keep all of them: [`Journal::tidy`] copies what such windows have
//! to the end of the log. Where no window is left, no segment is.
//!
//! After a failed write a new segment begins, since nobody knows how much of the record is in the old one. If that fails, too, the journal of that window is given up; the next
//! window tries anew. No failure reaches the observer.
//!
//! # What it guarantees
//! When an observation has ended, every class it saw stands in the files with at least the confidence it saw, whoever wrote it,
//! unless the journal has an [error](WindowJournal::error).
//!
//! # Limitations
//! * Frames that raise something write one after the other; with `sync` they wait for the disk side by side.
//! * A place of first sight that overlapping observers lower without a new maximum is not written: the order of a recovered report may differ
//!   as two observations that overlap in time have none.
//!
//! # Orderings
//! `slow_writes` is relaxed: it guards nothing. `key` of a class is relaxed, too: it is stored after the record was written, and says no more than that; the file itself is ordered by the lock of
//! the writer. A comparison and a store rather than an exchange, which takes as long as the rest of an entry: of two that come between each
//! other's the lesser key may stay. What is seen above it is written again.
#![allow(unsafe_code)]

use crate::cells::Peak;
use crate::peak::key;
use crate::record::{self, Entry, Frame, Kind, Opened, WindowId};
use crate::recovery::{Recovered, RecoveredWindow};
use crate::seed::Fast;
use crate::statistics::{PartId, Statistics};
use crate::sync::{AtomicU64, Ordering, unmodelled};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// A write that takes longer keeps others waiting if the interpreter is held meanwhile.
const SLOW: Duration = Duration::from_millis(5);

/// Bytes of a segment, but for a single record that is longer.
const SEGMENT: u64 = 4 << 20;

/// Bytes from which on the segments are copied to shorter ones.
const MANY: u64 = 8 * SEGMENT;

/// A record that has grown to this many bytes ends, and a further one begins.
const LONG: usize = 256 << 10;

/// Longer records were made by a hostile frame, and their memory is not kept.
const LARGEST_KEPT: usize = 1 << 20;

/// Name of the file with the statistics of open windows.
const STATISTICS: &str = "statistics";
const NEW_STATISTICS: &str = "statistics.new";

thread_local! {
    /// Taken for the time of one frame that has new maxima.
    static SCRATCH: Cell<Record> = const { Cell::new(Record::new()) };
}

/// The new maxima of one frame in one window, which are not in the file yet.
#[derive(Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    /// Where the last record begins.
    start: usize,
    /// The texts of its latest entry.
    texts: Option<(String, String)>,
    /// The classes of the entries, with their keys.
    added: Vec<(*const Journaled, u64)>,
}

// SAFETY: the pointers are to values that any thread may use; only `write` follows them.
unsafe impl Send for Record {}

impl Record {
    const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, texts: None, added: Vec::new() }
    }

    /// Appends the record to the journal of its window.
    ///
    /// # Safety
    /// The window whose maxima these are is alive, and `journal` is its journal.
    pub(crate) unsafe fn write(mut self, journal: &WindowJournal) {
        record::seal(&mut self.bytes, self.start, journal.journal.marker);
        if !self.added.is_empty() && journal.append(&self.bytes) {
            for &(class, key) in &self.added {
                // SAFETY: classes stay where they are as long as their window lives.
                let class = unsafe { &*class };
                if class.key.load(Ordering::Relaxed) < key {
                    class.key.store(key, Ordering::Relaxed);
                }
            }
        }
        if self.bytes.capacity() <= LARGEST_KEPT {
            self.bytes.clear();
            self.added.clear();
            // Without a place to keep it, it is freed.
            let _ = SCRATCH.try_with(|kept| kept.set(self));
        }
    }
}

/// Where the windows of a process are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// The directory of the segments, made with the first of them. Its parent holds those of other processes.
    pub directory: PathBuf,
    /// Whether each record is to survive the loss of power, too.
    pub sync: bool,
    /// Bytes of all segments below the parent from which on no more are made.
    pub limit: u64,
}

/// The journal of the windows of a process. A forked child needs another one.
#[derive(Debug)]
pub struct Journal {
    settings: JournalSettings,
    /// Of its records; see [`crate::record`].
    marker: u32,
    slow_writes: AtomicU64,
    writer: Mutex<Writer>,
}

/// The segments, oldest first.
#[derive(Debug, Default)]
struct Writer {
    next: u64,
    segments: VecDeque<Segment>,
    /// The last segment, unless a new one is to begin.
    file: Option<Arc<File>>,
    /// Windows that are not committed, with the number of the segment where each begins.
    windows: HashMap<WindowId, u64, Fast>,
    /// How many windows begin in a segment.
    begun: BTreeMap<u64, usize>,
    /// Bytes after what was copied last.
    copied: u64,
    /// What the file of statistics has, and whether there may be one.
    kept: Vec<u8>,
    keeps: bool,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
}

impl Writer {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Has a window begin in a segment.
    fn hold(&mut self, id: WindowId, segment: u64) {
        self.let_go(id);
        self.windows.insert(id, segment);
        *self.begun.entry(segment).or_default() += 1;
    }

    /// Forgets a window; false if it is not known.
    fn let_go(&mut self, id: WindowId) -> bool {
        let Some(segment) = self.windows.remove(&id) else { return false };
        if let Some(windows) = self.begun.get_mut(&segment) {
            *windows -= 1;
            if *windows == 0 {
                self.begun.remove(&segment);
            }
        }
        true
    }

    /// Begins anew, with nothing written so far.
    fn abandon(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}

impl Journal {
    /// Names a directory; nothing is made yet.
    #[must_use]
    pub fn new(settings: JournalSettings) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
        let marker = RandomState::new().build_hasher().finish() as u32;
        Self { settings, marker, slow_writes: AtomicU64::new(0), writer: Mutex::default() }
    }

    /// How many writes took over 5 ms.
    #[must_use]
    pub fn slow_writes(&self) -> u64 {
        self.slow_writes.load(Ordering::Relaxed)
    }

    /// Writes down the statistics of open windows in place of what was written of any before.
    ///
    /// They are in a file beside the segments, which is replaced as a whole: it grows with classes, not with time.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_statistics(&self, windows: &[(WindowId, PartId, Statistics)]) -> io::Result<()> {
        // Frames that raise something need the writer, so nothing is encoded while it is held.
        let (before, uncommitted) = {
            let writer = self.writer();
            (writer.kept.clone(), writer.windows.keys().copied().collect::<HashSet<_>>())
        };
        let open: HashSet<_> = windows.iter().map(|(id, ..)| *id).collect();
        // Of a window that was closed and is not committed, what was written last is all that there is.
        let closed = record::read_kept(&before).into_iter();
        let closed = closed.filter(|(id, ..)| uncommitted.contains(id) && !open.contains(id));
        let content = record::kept(&closed.chain(windows.iter().cloned()).collect::<Vec<_>>());
        {
            let mut writer = self.writer();
            if writer.windows.is_empty() || before == content {
                return Ok(()); // without a window there is no directory
            }
            writer.kept.clone_from(&content);
            writer.keeps = true;
        }
        let directory = &self.settings.directory;
        let scratch = directory.join(NEW_STATISTICS);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let kept = options.open(&scratch).and_then(|mut file| file.write_all(&content));
        let kept = kept.and_then(|()| fs::rename(&scratch, directory.join(STATISTICS)));
        let mut writer = self.writer();
        if writer.windows.is_empty() {
            self.forget_statistics(&mut writer);
            return Ok(()); // the last one is committed, and may have taken the directory along
        }
        kept.inspect_err(|_| writer.kept.clear())
    }

    /// Removes the files of statistics, and the directory if it has nothing else; what stays is of no window that is recovered.
    fn forget_statistics(&self, writer: &mut Writer) {
        if !std::mem::take(&mut writer.keeps) {
            return;
        }
        writer.kept.clear();
        for name in [STATISTICS, NEW_STATISTICS] {
            let _ = fs::remove_file(self.settings.directory.join(name));
        }
        let _ = fs::remove_dir(&self.settings.directory);
    }

    /// Notes that a window is safe elsewhere, also one of a dead process.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn commit(&self, id: WindowId) -> io::Result<()> {
        let mut writer = self.writer();
        if writer.let_go(id) && writer.windows.is_empty() {
            return self.clear(&mut writer);
        }
        self.put(&mut writer, &record::sealed(Kind::Committed, &id, self.marker))?;
        let outcome = self.sync(writer.file.as_ref());
        self.free(&mut writer);
        outcome
    }

    /// Copies what windows have in old segments to new ones, if the old ones have become many.
    ///
    /// # Errors
    /// If the old ones cannot be read, or new ones written; nothing is lost then.
    pub fn tidy(&self) -> io::Result<()> {
        let (old, boundary) = {
            let mut writer = self.writer();
            if writer.bytes() < MANY.max(2 * writer.copied) {
                return Ok(());
            }
            writer.file = None;
            let old: Vec<u64> = writer.segments.iter().map(|segment| segment.number).collect();
            (old, writer.next)
        };
        let mut recovered = Recovered::default();
        for number in old {
            recovered.add(&fs::read(self.path(number))?).map_err(io::Error::other)?;
        }
        for (id, window) in recovered.windows {
            let records = self.records(id, &window);
            let mut writer = self.writer();
            if writer.windows.get(&id).is_some_and(|&first| first < boundary) {
                self.put(&mut writer, &records)?;
                writer.hold(id, boundary);
            }
        }
        let mut writer = self.writer();
        self.sync(writer.file.as_ref())?;
        self.free(&mut writer);
        writer.copied = writer.bytes();
        Ok(())
    }

    /// Reads back what windows have in the segments; those that have nothing there are left out.
    ///
    /// # Errors
    /// If a segment cannot be read.
    pub fn read(&self, windows: &HashSet<WindowId>) -> io::Result<Recovered> {
        let mut missing = Vec::new();
        loop {
            let segments: Vec<u64> = {
                let writer = self.writer();
                let first = windows.iter().filter_map(|id| writer.windows.get(id)).min();
                let numbers = writer.segments.iter().map(|segment| segment.number);
                first.map_or_else(Vec::new, |first| numbers.filter(|number| number >= first).collect())
            };
            let mut recovered = Recovered::of(windows.clone());
            let read = segments
                .iter()
                .try_for_each(|&number| recovered.add(&fs::read(self.path(number))?).map_err(io::Error::other));
            match read {
                // They were copied to others meanwhile, or are gone with their directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound && missing != segments => missing = segments,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Recovered::default()),
                Err(error) => return Err(error),
                Ok(()) => return Ok(recovered),
            }
        }
    }

    /// The records of a window, as few as there can be.
    fn records(&self, id: WindowId, window: &RecoveredWindow) -> Vec<u8> {
        let mut bytes = window.about.as_ref().map_or_else(Vec::new, |about| self.opened(id, about));
        for line in window.snapshot.report() {
            let frame = Frame { id, model: line.peak.at.model, model_id: line.model_id };
            let start = record::begin(&mut bytes, Kind::Maxima, &frame);
            let entry = Entry {
                class_name: line.class_name,
                first: line.peak.first.arrival,
                arrival: line.peak.at.arrival,
                confidence: line.peak.confidence,
                texts: Some((&line.peak.inference_id, &line.peak.prediction_type)),
            };
            record::push(&mut bytes, &entry);
            record::seal(&mut bytes, start, self.marker);
        }
        for (number, registered) in &window.metadata {
            let start = record::begin(&mut bytes, Kind::Metadata, &(id, number));
            record::push(&mut bytes, registered);
            record::seal(&mut bytes, start, self.marker);
        }
        if let Some(at) = window.closed_at {
            bytes.extend(record::sealed(Kind::Closed, &(id, at), self.marker));
        }
        bytes
    }

    /// Twice, because without it nobody knows what the rest of the window's records is about.
    fn opened(&self, id: WindowId, about: &[u8]) -> Vec<u8> {
        record::sealed(Kind::Opened, &Opened { id, about }, self.marker).repeat(2)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.settings.directory.join(format!("{segment}.journal"))
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // Whatever a panic left there says no more than what is in the files.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn marker(&self) -> u32 {
        self.marker
    }

    /// Whether a write may take long: it waits for the disk, one did take long, or somebody else is at it.
    pub(crate) fn may_block(&self) -> bool {
        self.settings.sync || self.slow_writes() > 0 || matches!(self.writer.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Appends records, in a new segment if the last one is full or fails.
    fn put(&self, writer: &mut Writer, mut records: &[u8]) -> io::Result<()> {
        let mut failed = false;
        while !records.is_empty() {
            let (file, room) = self.segment(writer, record::fitting(records, 0))?;
            let length = record::fitting(records, room);
            match write(&file, &records[..length]) {
                Ok(()) => {
                    if let Some(segment) = writer.segments.back_mut() {
                        segment.bytes += length as u64;
                    }
                    records = &records[length..];
                }
                Err(error) => {
                    writer.file = None;
                    if failed {
                        return Err(error);
                    }
                    failed = true;
                }
            }
        }
        Ok(())
    }

    /// The segment to write to, and how many bytes it has room for: at least `length`, unless it is a new one.
    fn segment(&self, writer: &mut Writer, length: usize) -> io::Result<(Arc<File>, usize)> {
        let room = |segment: &Segment| usize::try_from(SEGMENT.saturating_sub(segment.bytes)).unwrap_or(usize::MAX);
        if let (Some(file), Some(segment)) = (&writer.file, writer.segments.back())
            && room(segment) >= length
        {
            return Ok((file.clone(), room(segment)));
        }
        self.sync(writer.file.as_ref())?;
        let directory = &self.settings.directory;
        let (taken, limit) = (size(directory.parent().unwrap_or(directory)), self.settings.limit);
        if taken >= limit {
            return Err(io::Error::other(format!("the journals take {} MiB, which is their limit", taken >> 20)));
        }
        let (file, number) = loop {
            let number = writer.next;
            match open(&self.path(number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => make_directory(directory)?,
                // Of another journal of this process.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => writer.next += 1,
                Err(error) => return Err(error),
                Ok(file) => break (file, number),
            }
        };
        writer.next += 1;
        let header = record::header(self.marker);
        if let Err(error) = write(&file, &header).and_then(|()| self.sync_directory()) {
            // The first error is the one to report.
            let _ = fs::remove_file(self.path(number));
            return Err(error);
        }
        let file = Arc::new(file);
        writer.file = Some(file.clone());
        let segment = Segment { number, bytes: header.len() as u64 };
        let room = room(&segment);
        writer.segments.push_back(segment);
        Ok((file, room))
    }

    /// Removes the oldest segments that no window needs.
    fn free(&self, writer: &mut Writer) {
        let needed = writer.begun.first_key_value().map_or(writer.next, |(&segment, _)| segment);
        while writer.segments.len() > 1 && writer.segments[0].number < needed {
            match fs::remove_file(self.path(writer.segments[0].number)) {
                // Later ones have to wait for it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return,
                _ => drop(writer.segments.pop_front()),
            }
        }
    }

    /// Removes all segments, which no window needs.
    fn clear(&self, writer: &mut Writer) -> io::Result<()> {
        writer.file = None;
        while let Some(segment) = writer.segments.front() {
            match fs::remove_file(self.path(segment.number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => drop(writer.segments.pop_front()),
            }
        }
        self.forget_statistics(writer);
        // Another journal of this process may have segments there.
        let _ = fs::remove_dir(&self.settings.directory);
        Ok(())
    }

    fn sync(&self, file: Option<&Arc<File>>) -> io::Result<()> {
        file.filter(|_| self.settings.sync).map_or(Ok(()), |file| file.sync_data())
    }

    /// Makes the name of a new file as lasting as its contents; Windows has no call for that.
    fn sync_directory(&self) -> io::Result<()> {
        if cfg!(unix) && self.settings.sync { File::open(&self.settings.directory)?.sync_all() } else { Ok(()) }
    }
}

/// A number for an aggregator, or for what else has windows, that no other of the process has.
pub(crate) fn next_number() -> u64 {
    static NEXT: unmodelled::AtomicU64 = unmodelled::AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Writes in one call, so that a record is not torn by a process that ends between two.
fn write(mut file: &File, records: &[u8]) -> io::Result<()> {
    let written = loop {
        match file.write(records) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => break outcome?,
        }
    };
    if written < records.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "a record was written in part"));
    }
    Ok(())
}

/// Bytes of the files in the directories of a directory, as far as they can be seen.
fn size(directory: &Path) -> u64 {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries(directory).flat_map(|process| entries(&process.path()));
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// The journal of one window.
#[derive(Debug)]
pub struct WindowJournal {
    journal: Arc<Journal>,
    id: WindowId,
    about: Arc<[u8]>,
    error: OnceLock<io::Error>,
    /// Set once its first record is written.
    begun: OnceLock<()>,
    /// Set once what it holds is safe elsewhere; what is written afterwards goes nowhere.
    removed: OnceLock<()>,
    /// Set once nobody observes the window any more.
    complete: OnceLock<()>,
}

impl WindowJournal {
    pub(crate) const fn new(journal: Arc<Journal>, id: WindowId, about: Arc<[u8]>) -> Self {
        Self {
            journal,
            id,
            about,
            error: OnceLock::new(),
            begun: OnceLock::new(),
            removed: OnceLock::new(),
            complete: OnceLock::new(),
        }
    }

    pub(crate) const fn id(&self) -> WindowId {
        self.id
    }

    pub(crate) const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// What tells the window apart from all others: the name of the directory and the two numbers.
    #[must_use]
    pub fn name(&self) -> String {
        let owner = self.journal.settings.directory.file_name().unwrap_or_default().to_string_lossy();
        format!("{owner}-{}-{}", self.id.aggregator, self.id.window)
    }

    /// Why the journal was given up, if it was.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.get()
    }

    /// Whether nobody observes the window any more, so that nothing more is written.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.get().is_some()
    }

    pub(crate) fn complete(&self) {
        // A window ends once.
        let _ = self.complete.set(());
    }

    /// How many writes of the process took over 5 ms.
    #[must_use]
    pub fn slow_writes(&self) -> u64 {
        self.journal.slow_writes()
    }

    /// Whether a write may take long.
    pub(crate) fn may_block(&self) -> bool {
        self.journal.may_block()
    }

    /// Notes when the window was closed, in microseconds since 1970; returns whether it is in the journal.
    ///
    /// It is not if nothing was written, or if somebody took the journal for that of a dead process and moved it: then one begins anew.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn close(&self, at: i64) -> io::Result<bool> {
        let mut writer = self.journal.writer();
        let Some(&first) = writer.windows.get(&self.id) else { return Ok(false) };
        if !self.journal.path(first).exists() {
            writer.abandon();
            return Ok(false);
        }
        self.journal.put(&mut writer, &record::sealed(Kind::Closed, &(self.id, at), self.journal.marker))?;
        Ok(true)
    }

    /// Notes that the window is safe elsewhere; what is written afterwards goes nowhere.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn remove(&self) -> io::Result<()> {
        let first = self.removed.set(()).is_ok();
        if first && self.journal.writer().windows.contains_key(&self.id) {
            self.journal.commit(self.id)
        } else {
            Ok(())
        }
    }

    /// Appends records; false if they are not in the file.
    pub(crate) fn append(&self, records: &[u8]) -> bool {
        let begun = Instant::now();
        let outcome = self.write(records);
        if begun.elapsed() > SLOW {
            self.journal.slow_writes.fetch_add(1, Ordering::Relaxed);
        }
        // Of several errors the first is reported.
        outcome.map_err(|error| drop(self.error.set(error))).is_ok()
    }

    fn write(&self, records: &[u8]) -> io::Result<()> {
        let file = {
            let mut writer = self.journal.writer();
            if self.removed.get().is_some() {
                return Ok(());
            }
            if writer.windows.contains_key(&self.id) {
                self.journal.put(&mut writer, records)?;
            } else if self.begun.set(()).is_err() {
                return Err(io::Error::other("it was taken for that of a dead process"));
            } else {
                let records = [&self.journal.opened(self.id, &self.about), records].concat();
                // If the segment is full, that keeps it a little longer than needed.
                let last = writer.segments.back().filter(|_| writer.file.is_some());
                let first = last.map_or(writer.next, |segment| segment.number);
                self.journal.put(&mut writer, &records)?;
                writer.hold(self.id, first);
            }
            writer.file.clone()
        };
        // Beside others, who need not wait for this one's disk.
        self.journal.sync(file.as_ref())
    }
}

/// What the journal knows of one class.
pub(crate) struct Journaled {
    name: OnceLock<Box<str>>,
    /// A key in the file, mostly the greatest; zero while it has none.
    key: AtomicU64,
}

impl Journaled {
    /// What is known of a class that is new to its window.
    pub(crate) fn new() -> Self {
        Self { name: OnceLock::new(), key: AtomicU64::new(0) }
    }
}

/// Collects the new maxima of one frame, for [`Record::write`].
pub(crate) struct Highs<'a> {
    journal: Option<&'a WindowJournal>,
    model: u64,
    model_id: &'a str,
    /// None as long as there are none, as in most frames.
    record: &'a mut Option<Record>,
}

/// How much a [`Highs`] held at some moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mark {
    bytes: usize,
    added: usize,
}

impl<'a> Highs<'a> {
    /// Nothing so far, and for ever if there is no journal or it was given up.
    #[inline]
    pub(crate) fn new(
        journal: Option<&'a WindowJournal>,
        model: u64,
        model_id: &'a str,
        record: &'a mut Option<Record>,
    ) -> Self {
        let journal = journal.filter(|journal| journal.error.get().is_none());
        Self { journal, model, model_id, record }
    }

    /// Whether the file does not have the class at `confidence` or above.
    #[inline]
    pub(crate) fn lack(&self, class: &Journaled, confidence: f64) -> bool {
        self.journal.is_some() && class.key.load(Ordering::Relaxed) < key(confidence)
    }

    pub(crate) fn mark(&self) -> Mark {
        let held = |record: &Record| Mark { bytes: record.bytes.len(), added: record.added.len() };
        self.record.as_ref().map_or(Mark::default(), held)
    }

    /// Adds a new maximum of a class that was first seen at `first`; it is asked for its name once.
    pub(crate) fn add(&mut self, class: &Journaled, name: impl FnOnce() -> String, first: u64, peak: &Peak) {
        let Some(journal) = self.journal else { return };
        // A thread that ends has no such memory any more.
        let Record { bytes, start, texts, added } =
            self.record.get_or_insert_with(|| SCRATCH.try_with(Cell::take).unwrap_or_default());
        let begins = bytes.is_empty() || bytes.len() - *start > LONG;
        if begins {
            if !bytes.is_empty() {
                record::seal(bytes, *start, journal.journal.marker);
            }
            let frame = Frame { id: journal.id, model: self.model, model_id: self.model_id };
            *start = record::begin(bytes, Kind::Maxima, &frame);
        }
        let repeated = !begins
            && texts.as_ref().is_some_and(|(id, kind)| *id == peak.inference_id && *kind == peak.prediction_type);
        let entry = Entry {
            class_name: class.name.get_or_init(|| name().into()),
            first,
            arrival: peak.arrival,
            confidence: peak.confidence,
            texts: (!repeated).then_some((&peak.inference_id, &peak.prediction_type)),
        };
        record::push(bytes, &entry);
        if !repeated {
            let (id, kind) = texts.get_or_insert_default();
            id.clone_from(&peak.inference_id);
            kind.clone_from(&peak.prediction_type);
        }
        added.push((class, key(peak.confidence)));
    }

    /// Takes back what was added since, before the observation leaves the window.
    pub(crate) fn take_back(&mut self, mark: Mark) {
        if let Some(record) = self.record {
            record.added.truncate(mark.added);
            record.bytes.truncate(mark.bytes);
        }
    }
}

#[cfg(all(test, not(peakhold_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_is_not_written() {
        let directory = std::env::temp_dir().join(format!("peakhold-taken-back-{}", std::process::id()));
        let settings = JournalSettings { directory: directory.clone(), sync: false, limit: u64::MAX };
        let id = WindowId { aggregator: 0, window: 0 };
        let journal = WindowJournal::new(Arc::new(Journal::new(settings)), id, Arc::default());
        let classes = [Journaled::new(), Journaled::new()];
        // How many of the classes stay is how many are written.
        for kept in 0..=1 {
            let mut record = None;
            let mut highs = Highs::new(Some(&journal), 0, "m", &mut record);
            let peak = Peak { confidence: 0.5, ..Peak::default() };
            for class in &classes[..kept] {
                highs.add(class, String::new, 0, &peak);
            }
            let mark = highs.mark();
            highs.add(&classes[kept], String::new, 0, &peak);
            highs.take_back(mark);
            // SAFETY: the classes live as long.
            unsafe { record.expect("some were added").write(&journal) };
            assert_eq!(directory.exists(), kept > 0);
        }
        let segment = fs::read(directory.join("0.journal")).expect("a segment");
        let written = crate::recover([&*segment]).expect("a journal");
        assert_eq!((written.windows[&id].snapshot.len(), written.damaged), (1, 0));
        assert_eq!(classes.each_ref().map(|class| class.key.load(Ordering::Relaxed) > 0), [true, false]);
        journal.remove().expect("our own file");
        assert!(!directory.exists());
    }
}
