//! The journal of an open window: its record highs, written to a file before `observe` returns.
//!
//! A process that is killed loses its memory, and with it the open windows. What it has handed to the system with `write`
//! stays. Record highs are rare, some six per class in 150 frames, so appending only these costs most frames nothing.
//! The highs of one frame make one record and one call; the layout is in [`crate::record`], reading it in [`crate::recovery`].
//!
//! Each window has a file of its own, made with its first record, or [ahead of it](crate::Aggregator::prepare_journal), and removed by [`WindowJournal::remove`] once the window is
//! safe elsewhere. A drain therefore touches no file. What cannot be written is given up for the rest of the window, since nothing could be read
//! past a torn record; the next window tries anew. No failure reaches the observer.
//!
//! # What it guarantees
//! When an observation returns, every class it saw stands in the file with at least the confidence it saw, whoever wrote it,
//! unless the journal has an [error](WindowJournal::error).
//!
//! # Limitations
//! * Observers that come to a window's very first record together wait for the one that makes its file, some 80 µs.
//! * A place of first sight that overlapping observers lower without a record high is not written: the order of a recovered report may differ
//!   as two observations that overlap in time have none.
//! * The file grows with record highs; a class that rises with every frame adds some 20 to 90 bytes a frame until the window closes.
//!
//! # Orderings
//! `slow_writes`, `bytes` and `WRITTEN` are relaxed: they guard nothing.
//!
//! `key` of a class is stored (release) after the record with the class's name was written, and read (acquire) before a record
//! leaves the name out: in the file the name comes first. The system itself orders appends to one file. A comparison and a store rather than
//! an exchange, which takes as long as the rest of an entry: of two that come between each other's the lesser key may stay. The file has a
//! record of that, too, and what is seen above it is written again.

#![allow(unsafe_code)]

use crate::cells::Peak;
use crate::peak::key;
use crate::record::{self, Entry, Header, MAGIC, Named, VERSION};
use crate::sync::{AtomicU32, AtomicU64, Ordering, unmodelled};
use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A write that takes longer keeps others waiting if the interpreter is held meanwhile.
const SLOW: Duration = Duration::from_millis(5);

/// A record longer than this was made by a hostile frame, and its memory is not kept.
const LARGEST_KEPT: usize = 1 << 20;

/// Bytes of the journals of this process's windows.
static WRITTEN: unmodelled::AtomicU64 = unmodelled::AtomicU64::new(0);

thread_local! {
    /// Taken for the time of one frame that has record highs.
    static SCRATCH: Cell<Record> = const { Cell::new(Record::new()) };
}

/// The record highs of one frame in one window, which are not in the file yet.
#[derive(Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    /// The texts of its latest entry.
    inference_id: String,
    prediction_type: String,
    /// The classes of its entries, with their keys.
    added: Vec<(*const Journaled, u64)>,
}

// SAFETY: the pointers are to values that any thread may use; only `write` follows them.
unsafe impl Send for Record {}

impl Record {
    const fn new() -> Self {
        Self { bytes: Vec::new(), inference_id: String::new(), prediction_type: String::new(), added: Vec::new() }
    }

    fn begun() -> Self {
        // A thread that ends has no such memory any more.
        let mut record = SCRATCH.try_with(Cell::take).unwrap_or_default();
        record::begin(&mut record.bytes);
        record
    }

    /// Appends the record to the file of its window.
    ///
    /// # Safety
    /// The window whose highs these are is alive, and `journal` is its journal.
    pub(crate) unsafe fn write(mut self, journal: &WindowJournal) {
        if !self.added.is_empty() && record::seal(&mut self.bytes) && journal.append(&self.bytes) {
            for &(class, key) in &self.added {
                // SAFETY: classes stay where they are as long as their window lives.
                let class = unsafe { &*class };
                if class.key.load(Ordering::Relaxed) < key {
                    class.key.store(key, Ordering::Release);
                }
            }
        }
        if self.bytes.capacity() <= LARGEST_KEPT {
            self.added.clear();
            // Without a place to keep it, it is freed.
            let _ = SCRATCH.try_with(|kept| kept.set(self));
        }
    }
}

/// Where an aggregator's windows have their journals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// What the files' paths begin with; `-`, the number of the window and `.journal` follow. No other aggregator may have the same.
    pub prefix: PathBuf,
    /// Written at the head of each file, for whoever recovers it.
    pub about: Vec<u8>,
    /// Whether each record is to survive the loss of power, too.
    pub sync: bool,
    /// Bytes that the journals of the process may take together; windows go without one where that is reached.
    pub limit: u64,
}

/// What the journals of an aggregator's windows have in common.
#[derive(Debug)]
pub(crate) struct Journals {
    settings: JournalSettings,
    slow_writes: AtomicU64,
}

impl Journals {
    pub(crate) fn new(settings: JournalSettings) -> Self {
        Self { settings, slow_writes: AtomicU64::new(0) }
    }
}

/// The journal of one window.
#[derive(Debug)]
pub struct WindowJournal {
    journals: Arc<Journals>,
    window: u64,
    /// None once removed, or if it could not be made.
    file: OnceLock<Option<File>>,
    error: OnceLock<io::Error>,
    classes: AtomicU32,
    bytes: AtomicU64,
}

impl WindowJournal {
    pub(crate) fn new(journals: Arc<Journals>, window: u64) -> Self {
        Self {
            journals,
            window,
            file: OnceLock::new(),
            error: OnceLock::new(),
            classes: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Where the file is, or would be.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let mut path = self.journals.settings.prefix.clone().into_os_string();
        path.push(format!("-{}.journal", self.window));
        path.into()
    }

    /// Why the journal was given up, if it was.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.get()
    }

    /// How many writes to the journals of this aggregator took over 5 ms.
    #[must_use]
    pub fn slow_writes(&self) -> u64 {
        self.journals.slow_writes.load(Ordering::Relaxed)
    }

    /// Whether a write may take long: it waits for the disk, or one of this aggregator did take long.
    pub(crate) fn may_block(&self) -> bool {
        self.journals.settings.sync || self.slow_writes() > 0
    }

    /// Makes the file ahead of the first record, which otherwise does.
    pub(crate) fn prepare(&self) {
        self.file();
    }

    fn file(&self) -> Option<&File> {
        self.file.get_or_init(|| self.create().map_err(|error| self.give_up(error)).ok()).as_ref()
    }

    /// Removes the file; what is written afterwards goes nowhere.
    ///
    /// # Errors
    /// If there is a file and it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        if self.file.get_or_init(|| None).is_none() {
            return Ok(());
        }
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Appends a record; false if it is not in the file.
    fn append(&self, record: &[u8]) -> bool {
        let begun = Instant::now();
        let Some(file) = self.file() else { return false };
        let written = self.write(file, record).map_err(|error| self.give_up(error)).is_ok();
        if begun.elapsed() > SLOW {
            self.journals.slow_writes.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn write(&self, mut file: &File, record: &[u8]) -> io::Result<()> {
        let (length, limit) = (record.len() as u64, self.journals.settings.limit);
        self.bytes.fetch_add(length, Ordering::Relaxed);
        if WRITTEN.fetch_add(length, Ordering::Relaxed) + length > limit {
            return Err(io::Error::other(format!("the journals take {} MiB, which is their limit", limit >> 20)));
        }
        // In one call, so that records of several observers do not mix.
        let written = loop {
            match file.write(record) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        if written < record.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "a record was written in part"));
        }
        if self.journals.settings.sync { file.sync_data() } else { Ok(()) }
    }

    fn create(&self) -> io::Result<File> {
        let path = self.path();
        let directory = path.parent().unwrap_or(Path::new(""));
        let file = open(&path).or_else(|error| match error.kind() {
            // Somebody has tidied up.
            io::ErrorKind::NotFound => make_directory(directory).and_then(|()| open(&path)),
            _ => Err(error),
        })?;
        let mut head = Vec::new();
        record::begin(&mut head);
        record::push(&mut head, &Header { window: self.window, about: &self.journals.settings.about });
        record::seal(&mut head);
        head.splice(..0, MAGIC.iter().copied().chain([VERSION]));
        let outcome = self.write(&file, &head).and_then(|()| self.sync_directory(directory));
        if outcome.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_file(&path);
        }
        outcome.map(|()| file)
    }

    /// Makes the name of a new file as lasting as its contents; Windows has no call for that.
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        if cfg!(unix) && self.journals.settings.sync { File::open(directory)?.sync_all() } else { Ok(()) }
    }

    fn give_up(&self, error: io::Error) {
        // Of several errors the first is told.
        let _ = self.error.set(error);
    }
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

impl Drop for WindowJournal {
    fn drop(&mut self) {
        WRITTEN.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What the journal knows of one class.
pub(crate) struct Journaled {
    number: u32,
    /// A key in the file, mostly the greatest; zero while not even the name is.
    key: AtomicU64,
}

impl Journaled {
    /// What is known of a class that is new to its window.
    pub(crate) fn new(journal: Option<&WindowJournal>) -> Self {
        let number = journal.map_or(0, |journal| journal.classes.fetch_add(1, Ordering::Relaxed));
        Self { number, key: AtomicU64::new(0) }
    }
}

/// Collects the record highs of one frame, for [`Record::write`].
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

    /// Adds a record high of a class that was first seen at `first`; it is asked for its name when it is new to the file.
    pub(crate) fn add(&mut self, class: &Journaled, name: impl FnOnce() -> String, first: u64, peak: &Peak) {
        if self.journal.is_none() {
            return;
        }
        let Record { bytes, inference_id, prediction_type, added } = self.record.get_or_insert_with(Record::begun);
        let named = class.key.load(Ordering::Acquire) > 0;
        let class_name = if named { String::new() } else { name() };
        let named = (!named).then_some(Named { model: self.model, model_id: self.model_id, class_name: &class_name });
        let repeated =
            !added.is_empty() && *inference_id == peak.inference_id && *prediction_type == peak.prediction_type;
        let entry = Entry {
            class: class.number,
            named,
            first,
            arrival: peak.arrival,
            confidence: peak.confidence,
            texts: (!repeated).then_some((&peak.inference_id, &peak.prediction_type)),
        };
        record::push(bytes, &entry);
        if !repeated {
            inference_id.clone_from(&peak.inference_id);
            prediction_type.clone_from(&peak.prediction_type);
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

    fn highs<'a>(journal: &'a WindowJournal, record: &'a mut Option<Record>) -> Highs<'a> {
        Highs::new(Some(journal), 0, "m", record)
    }

    fn journal(prefix: PathBuf) -> WindowJournal {
        WindowJournal::new(
            Arc::new(Journals::new(JournalSettings { prefix, about: Vec::new(), sync: false, limit: u64::MAX })),
            0,
        )
    }

    fn add(highs: &mut Highs<'_>, class: &Journaled) {
        highs.add(class, String::new, 0, &Peak { confidence: 0.5, ..Peak::default() });
    }

    fn write(record: Option<Record>, journal: &WindowJournal) {
        // SAFETY: the classes of these tests live as long.
        unsafe { record.expect("some were added").write(journal) };
    }

    /// A full disk, which is there on Linux without any arrangement.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_journal_on_a_full_disk_is_given_up_at_the_first_record() {
        let journal = journal(PathBuf::new());
        journal.file.set(OpenOptions::new().append(true).open("/dev/full").ok()).expect("not made yet");
        let class = Journaled::new(Some(&journal));
        assert!(highs(&journal, &mut None).lack(&class, 0.5), "the control");
        let mut record = None;
        add(&mut highs(&journal, &mut record), &class);
        write(record, &journal);
        assert_eq!(journal.error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        assert_eq!(class.key.load(Ordering::Relaxed), 0, "what is not in the file does not count as written");
        assert!(!highs(&journal, &mut None).lack(&class, 0.5), "nobody tries again");
    }

    #[test]
    fn what_was_taken_back_is_not_written() {
        let prefix = std::env::temp_dir().join(format!("peakhold-taken-back-{}", std::process::id()));
        let journal = journal(prefix);
        let classes = [Journaled::new(Some(&journal)), Journaled::new(Some(&journal))];
        let mut record = None;
        let mut added = highs(&journal, &mut record);
        let mark = added.mark();
        add(&mut added, &classes[0]);
        added.take_back(mark);
        write(record, &journal);
        assert!(!journal.path().exists());
        let mut record = None;
        let mut added = highs(&journal, &mut record);
        add(&mut added, &classes[0]);
        let mark = added.mark();
        add(&mut added, &classes[1]);
        added.take_back(mark);
        write(record, &journal);
        let written = crate::recover(&fs::read(journal.path()).expect("a file")).expect("a journal");
        assert_eq!((written.snapshot.len(), written.damaged), (1, false));
        assert_eq!(classes.each_ref().map(|class| class.key.load(Ordering::Relaxed) > 0), [true, false]);
        journal.remove().expect("our own file");
    }
}
