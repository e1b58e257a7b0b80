//! What a window wrote down before it was lost is what it would have reported.

use crate::support::{Line, Row, line, observe};
use peakhold::{
    Aggregator, Journal, JournalError, JournalSettings, Recovered, Snapshot, Tally, WindowId, WindowJournal, recover,
};
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const ABOUT: &[u8] = b"what the window is about";

/// A directory that goes with the test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("peakhold-journal-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a directory of our own");
        Self(path)
    }

    pub(crate) fn journal(&self, limit: u64) -> Arc<Journal> {
        Arc::new(Journal::new(JournalSettings { directory: self.0.join("own"), sync: false, limit }))
    }

    fn aggregator(&self) -> Aggregator {
        Aggregator::journaled(1_000, self.journal(u64::MAX), ABOUT)
    }

    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.0.join("own")).into_iter().flatten();
        let mut paths: Vec<_> = files.map(|file| file.expect("it is there").path()).collect();
        paths.sort_by_key(|path| path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()));
        paths
    }

    /// The bytes of the only segment.
    fn bytes(&self) -> Vec<u8> {
        let paths = self.segments();
        assert_eq!(paths.len(), 1);
        fs::read(&paths[0]).expect("a file")
    }

    pub(crate) fn recovered(&self) -> Recovered {
        let segments: Vec<_> = self.segments().iter().map(|path| fs::read(path).expect("a file")).collect();
        recover(segments.iter().map(Vec::as_slice)).expect("segments")
    }

    /// The peaks of the only window that is not committed.
    fn snapshot(&self) -> Snapshot {
        let mut windows = self.recovered().windows.into_values();
        let window = windows.next().expect("a window");
        assert!(windows.next().is_none());
        assert_eq!(window.about.as_deref(), Some(ABOUT));
        window.snapshot
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn close(aggregator: &Aggregator) -> (Snapshot, Option<Arc<WindowJournal>>) {
    let closed = aggregator.close();
    let journal = closed.journal();
    (closed.empty(), journal)
}

fn rows(rows: &[(&str, f64, &str)]) -> Vec<Row> {
    rows.iter().map(|&(name, confidence, id)| (name.to_owned(), confidence, id.to_owned())).collect()
}

fn watch(aggregator: &Aggregator, model: &str, frame: &[(&str, f64, &str)]) {
    observe(aggregator, model, &rows(frame), 8, &mut Tally::default());
}

fn lines(snapshot: &Snapshot) -> Vec<Line> {
    snapshot.report().iter().map(line).collect()
}

#[test]
fn a_lost_window_is_recovered_as_it_was() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    watch(&aggregator, "m/1", &[("car", 0.5, "f1"), ("人", -0.0, "f1"), ("", 0.25, "f1")]);
    watch(&aggregator, "m/2", &[("car", 0.5, "f2"), ("bus", 0.75, "f2")]);
    watch(&aggregator, "m/1", &[("car", 0.4, "f3"), ("bus", 0.75, "f3"), ("人", 1.0, "f3")]);
    assert_eq!(directory.recovered().damaged, 0);
    assert_eq!(directory.snapshot(), aggregator.close().empty());
}

#[test]
fn a_frame_without_a_record_high_writes_nothing() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    let length = || directory.segments().iter().map(|path| fs::metadata(path).expect("a file").len()).sum::<u64>();
    watch(&aggregator, "m", &[]);
    assert_eq!(length(), 0, "nor does an empty one");
    watch(&aggregator, "m", &[("a", 0.5, "f1"), ("b", 0.5, "f1")]);
    let written = length();
    for _ in 0..100 {
        watch(&aggregator, "m", &[("a", 0.5, "f2"), ("b", 0.25, "f2")]);
    }
    assert_eq!(length(), written);
    watch(&aggregator, "m", &[("a", 0.5, "f3"), ("b", 0.75, "f3")]);
    assert!(length() > written, "the control");
    assert!(length() < written + 60, "neither names nor classes that were not raised are repeated");
}

#[test]
fn windows_share_a_segment_which_goes_with_the_last_of_them() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    let (first, journal) = close(&aggregator);
    watch(&aggregator, "m", &[("b", 0.25, "f2")]);
    let windows: Vec<_> = directory.recovered().windows.into_values().map(|window| window.snapshot).collect();
    assert_eq!((windows.len(), &windows[0], directory.segments().len()), (2, &first, 1));
    let journal = journal.expect("it has one");
    assert!(journal.close(123).expect("our own file"), "it is there");
    assert_eq!(directory.recovered().windows.into_values().next().expect("the first").closed_at, Some(123));
    for _ in 0..2 {
        journal.remove().expect("our own file");
    }
    assert_eq!(directory.snapshot().len(), 1, "the second");
    assert_eq!(aggregator.drain().len(), 1, "a report that was handed out needs no file");
    assert!(directory.segments().is_empty());
    drop((aggregator.close(), aggregator.drain()));
    assert!(directory.segments().is_empty(), "an empty window writes nothing");
}

#[test]
fn what_is_written_after_the_removal_goes_nowhere() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    let (_, journal) = close(&aggregator);
    let journal = journal.expect("it has one");
    journal.remove().expect("nothing to remove");
    assert!(!journal.close(1).expect("nothing to write"));
    assert!(directory.segments().is_empty());
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    assert_eq!(directory.snapshot().len(), 1, "the control");
}

#[test]
fn ten_thousand_windows_need_one_descriptor() {
    let directory = Directory::new();
    let journal = directory.journal(u64::MAX);
    let windows = if cfg!(miri) { 10 } else { 10_000 };
    let aggregators: Vec<_> = (0..windows)
        .map(|_| {
            let aggregator = Aggregator::journaled(10, journal.clone(), ABOUT);
            watch(&aggregator, "m", &[("a", 0.5, "f1")]);
            aggregator
        })
        .collect();
    #[cfg(target_os = "linux")]
    {
        let own = directory.0.to_string_lossy().into_owned();
        let links = fs::read_dir("/proc/self/fd").expect("Linux").flatten().map(|link| fs::read_link(link.path()));
        let open = links.flatten().filter(|path| path.to_string_lossy().starts_with(&own));
        assert_eq!(open.count(), 1);
    }
    assert_eq!(directory.recovered().windows.len(), windows);
    assert!(directory.segments().iter().all(|path| fs::metadata(path).expect("a file").len() <= 4 << 20));
    drop(aggregators);
}

/// Raises a class as often as it takes to write so many bytes.
fn fill(aggregator: &Aggregator, from: f64, bytes: usize) {
    let id = "x".repeat(1_000);
    for round in 0..bytes / 1_000 {
        watch(aggregator, "m", &[("a", from + 1e-6 * f64::from(u32::try_from(round).expect("few")), &id)]);
    }
}

#[test]
fn one_window_that_lives_long_keeps_the_disk_bounded() {
    let directory = Directory::new();
    let journal = directory.journal(u64::MAX);
    let (old, busy) = [(); 2].map(|()| Aggregator::journaled(10, journal.clone(), ABOUT)).into();
    watch(&old, "m", &[("old", 0.5, "f")]);
    for round in 0..3_u32 {
        fill(&busy, f64::from(round), 14 << 20);
        assert_eq!(busy.drain().len(), 1);
        journal.tidy().expect("our own files");
    }
    assert!(directory.segments().len() < 8, "the control: 42 MiB were written");
    assert_eq!(directory.snapshot(), old.close().empty());
}

#[test]
fn what_was_copied_is_the_window_as_it_was() {
    let directory = Directory::new();
    let journal = directory.journal(u64::MAX);
    let aggregator = Aggregator::journaled(10, journal.clone(), ABOUT);
    watch(&aggregator, "m/2", &[("b", 0.5, "f")]);
    fill(&aggregator, 0.0, 33 << 20);
    let before = directory.segments();
    journal.tidy().expect("our own files");
    let after = directory.segments();
    assert!(before.len() > 8 && after.len() == 1 && !before.contains(&after[0]));
    watch(&aggregator, "m/2", &[("b", 0.75, "g")]);
    let (held, journal) = close(&aggregator);
    assert_eq!(directory.snapshot(), held);
    journal.expect("it has one").remove().expect("our own files");
    assert!(directory.segments().is_empty());
}

#[test]
fn a_commit_is_known_as_long_as_anything_of_its_window_is_there() {
    let directory = Directory::new();
    let journal = directory.journal(u64::MAX);
    let (one, other) = [(); 2].map(|()| Aggregator::journaled(10, journal.clone(), ABOUT)).into();
    fill(&one, 0.0, 5 << 20);
    watch(&other, "m", &[("b", 0.5, "f")]);
    fill(&one, 1.0, 5 << 20);
    assert_eq!(one.drain().len(), 1);
    assert_eq!(directory.snapshot(), other.close().empty());
    assert!(directory.segments().len() > 1, "the control");
}

#[test]
fn an_aggregator_that_is_dropped_leaves_its_file() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    drop(aggregator);
    assert_eq!(directory.snapshot().len(), 1);
}

#[test]
fn a_directory_that_somebody_deleted_is_made_again() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    fs::remove_dir(&directory.0).expect("it is empty");
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    assert_eq!(directory.snapshot().len(), 1);
}

#[test]
fn a_journal_that_cannot_be_made_is_given_up_until_the_next_window() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    fs::write(directory.0.join("own"), b"in the way").expect("our own directory");
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    watch(&aggregator, "m", &[("a", 0.75, "f2")]);
    let (held, journal) = close(&aggregator);
    let journal = journal.expect("it has one");
    assert_eq!(held.len(), 1);
    assert!(journal.error().is_some());
    journal.remove().expect("nothing of ours to remove");
    fs::remove_file(directory.0.join("own")).expect("still there");
    watch(&aggregator, "m", &[("a", 0.5, "f3")]);
    let (held, journal) = close(&aggregator);
    assert_eq!(directory.snapshot(), held);
    assert!(journal.expect("it has one").error().is_none(), "the control");
}

#[test]
fn a_class_stands_in_the_file_when_its_observation_returns() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    std::thread::scope(|scope| {
        for thread in 0..3_u32 {
            let (aggregator, directory) = (&aggregator, &directory);
            scope.spawn(move || {
                for round in 0..150 {
                    let confidence = f64::from(round * 3 + thread);
                    watch(aggregator, "m", &[("a", confidence, "id")]);
                    let written = lines(&directory.snapshot());
                    assert!(f64::from_bits(written[0].2) >= confidence);
                }
            });
        }
    });
}

#[test]
fn what_many_threads_wrote_is_recovered_as_it_was() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    let rounds = if cfg!(miri) { 10 } else { 2_000 };
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let aggregator = &aggregator;
            scope.spawn(move || {
                for round in 0..rounds {
                    watch(
                        aggregator,
                        "m",
                        &[("a", f64::from(round * 4 + thread), "id"), ("b", f64::from(round), "id")],
                    );
                }
            });
        }
    });
    let recovered = directory.snapshot();
    assert_eq!(directory.recovered().damaged, 0);
    let confidences =
        |snapshot: &Snapshot| lines(snapshot).into_iter().map(|line| (line.1, line.2)).collect::<Vec<_>>();
    assert_eq!(confidences(&recovered), confidences(&aggregator.close().empty()));
}

/// A journal of two windows, of at least 4 KiB, with the places where its records end.
fn journal_of_four_kib(directory: &Directory) -> (Vec<u8>, Vec<usize>) {
    let journal = directory.journal(u64::MAX);
    let aggregators = [(); 2].map(|()| Aggregator::journaled(1_000, journal.clone(), ABOUT));
    let mut bytes = Vec::new();
    for round in 0_usize.. {
        let (model, id) = (format!("project/{}", round % 3), format!("0b8cf2ee-2c4c-4a5c-9f3a-{round:012}"));
        let names = [format!("class {}", round % 7), format!("类 {}", round % 5)];
        #[allow(clippy::cast_precision_loss, reason = "it is small")]
        let frame: Vec<Row> = names.iter().map(|name| (name.clone(), round as f64 / 8.0, id.clone())).collect();
        observe(&aggregators[round % 2], &model, &frame, 12, &mut Tally::default());
        bytes = directory.bytes();
        if bytes.len() >= 4096 {
            break;
        }
    }
    let mut ends = vec![HEADER];
    while let Some(&end) = ends.last()
        && end < bytes.len()
    {
        let length = u32::from_le_bytes(bytes[end + 4..end + 8].try_into().expect("four bytes"));
        ends.push(end + 12 + length as usize);
    }
    assert_eq!(ends.last(), Some(&bytes.len()));
    (bytes, ends)
}

/// Both copies of the header of a segment.
const HEADER: usize = 2 * 17;

fn recovered(bytes: &[u8]) -> Recovered {
    recover([bytes]).expect("a segment")
}

#[test]
fn a_journal_cut_anywhere_yields_its_whole_records() {
    let directory = Directory::new();
    let (bytes, ends) = journal_of_four_kib(&directory);
    for length in 0..bytes.len() {
        let found = recovered(&bytes[..length]);
        let whole = ends.iter().rev().find(|&&end| end <= length).copied();
        let wanted = whole.map(|end| recovered(&bytes[..end])).unwrap_or_default();
        assert_eq!(found.windows, wanted.windows, "cut at {length}");
        assert_eq!(found.damaged > 0, length > 0 && whole != Some(length), "cut at {length}");
    }
}

#[test]
fn a_flip_of_any_byte_costs_its_own_record_only() {
    let directory = Directory::new();
    let (bytes, ends) = journal_of_four_kib(&directory);
    let whole = recovered(&bytes);
    assert_eq!((whole.windows.len(), whole.damaged), (2, 0));
    for at in 0..bytes.len() {
        let record = ends.windows(2).find(|pair| (pair[0]..pair[1]).contains(&at));
        let without = record.map_or_else(|| bytes.clone(), |pair| [&bytes[..pair[0]], &bytes[pair[1]..]].concat());
        let wanted = recovered(&without).windows;
        assert!(wanted.values().all(|window| window.about.as_deref() == Some(ABOUT)));
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let found = recovered(&damaged);
            assert_eq!((found.windows, found.damaged), (wanted.clone(), 1), "flip at {at}");
        }
    }
}

#[test]
fn newer_and_foreign_files_are_told_apart() {
    assert_eq!(recover([&b"peakhold\x03whatever"[..]]), Err(JournalError::NewerVersion(3)));
    for foreign in [&b"SQLite format 3\0"[..], b"peakhold\x00", b"p\n"] {
        assert_eq!(recover([foreign]), Err(JournalError::Foreign));
    }
    assert_eq!(recover([&b""[..]]), Ok(Recovered::default()));
}

#[test]
fn a_text_that_looks_like_a_record_is_not_one() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    watch(&aggregator, "m", &[("a", 0.5, "f")]);
    let other = Directory::new();
    let hostile = other.aggregator();
    watch(&hostile, "m", &[("forged", 1.0, "f")]);
    // Even with the right length and checksum, which stand in the bytes of another journal.
    let mut bytes = directory.bytes();
    bytes.extend(&other.bytes()[HEADER..]);
    let found = recovered(&bytes);
    assert_eq!((found.windows.len(), found.damaged), (1, 1));
    drop((aggregator, hostile));
}

#[test]
fn commits_of_others_are_noted() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    watch(&aggregator, "m", &[("a", 0.5, "f")]);
    let (&id, _) = directory.recovered().windows.iter().next().map(|(id, window)| (id, window.clone())).expect("one");
    let heir = directory.journal(u64::MAX);
    heir.commit(WindowId { window: 9, ..id }).expect("our own files");
    assert_eq!(directory.recovered().windows.len(), 1, "the control");
    heir.commit(id).expect("our own files");
    assert!(directory.recovered().windows.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn records_in_any_order_and_number_yield_the_same_peaks(order in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let directory = Directory::new();
        let (bytes, ends) = journal_of_four_kib(&directory);
        let records: Vec<&[u8]> = ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let mut shuffled = bytes[..HEADER].to_vec();
        let mut rest = records.clone();
        for index in &order {
            if !rest.is_empty() {
                shuffled.extend(rest.swap_remove(index.index(rest.len())));
            }
            shuffled.extend(*index.get(&records));
        }
        for record in rest.iter().rev() {
            shuffled.extend(*record);
        }
        prop_assert_eq!(recovered(&shuffled), recovered(&bytes));
    }

    #[test]
    fn garbage_never_does_harm(garbage in prop::collection::vec(any::<u8>(), 0..300), keep in 0_usize..200) {
        let directory = Directory::new();
        let aggregator = directory.aggregator();
        watch(&aggregator, "m", &[("a", 0.5, "id")]);
        let whole = directory.bytes();
        let mut bytes = whole[..keep.min(whole.len())].to_vec();
        bytes.extend(&garbage);
        if let Ok(found) = recover([bytes.as_slice()]) {
            let empty = found.windows.values().all(|window| window.snapshot.is_empty());
            prop_assert!(empty || bytes.starts_with(&whole));
        }
    }
}

#[test]
fn journals_beyond_their_limit_are_given_up_and_the_room_comes_back() {
    let directory = Directory::new();
    let journal = directory.journal(6 << 20);
    let aggregator = Aggregator::journaled(10, journal, ABOUT);
    fill(&aggregator, 0.0, 20 << 20);
    let (first, journal) = close(&aggregator);
    let journal = journal.expect("it has one");
    assert!(journal.error().expect("the limit").to_string().contains("limit"));
    assert_eq!(directory.segments().len(), 2);
    assert_eq!(lines(&first).len(), 1, "the window itself has everything");
    journal.remove().expect("our own files");
    fill(&aggregator, 0.0, 1_000);
    assert!(close(&aggregator).1.expect("it has one").error().is_none(), "there is room again");
}
