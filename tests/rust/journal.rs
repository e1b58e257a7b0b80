//! What a window wrote down before it was lost is what it would have reported.

use crate::support::{Line, Row, line, observe};
use peakhold::{Aggregator, JournalError, JournalSettings, Recovered, Snapshot, Tally, WindowJournal, recover};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const ABOUT: &[u8] = b"what the window is about";

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("peakhold-journal-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a directory of our own");
        Self(path)
    }

    fn aggregator(&self) -> Aggregator {
        self.limited(u64::MAX)
    }

    fn limited(&self, limit: u64) -> Aggregator {
        let prefix = self.0.join("own");
        Aggregator::journaled(1_000, JournalSettings { prefix, about: ABOUT.to_vec(), sync: false, limit })
    }

    fn path(&self, window: u64) -> PathBuf {
        self.0.join(format!("own-{window}.journal"))
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).expect("it is there").count()
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

fn read(path: &Path) -> Recovered {
    recover(&fs::read(path).expect("a file")).expect("a journal")
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
    let recovered = read(&directory.path(0));
    let held = aggregator.close().empty();
    assert_eq!(recovered, Recovered { about: Some(ABOUT.to_vec()), snapshot: held, damaged: false });
}

#[test]
fn a_frame_without_a_record_high_writes_nothing() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    let length = || fs::metadata(directory.path(0)).map(|file| file.len()).unwrap_or_default();
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
fn every_window_has_a_file_of_its_own_which_goes_when_it_is_told() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    let (first, journal) = close(&aggregator);
    watch(&aggregator, "m", &[("b", 0.25, "f2")]);
    assert_eq!(read(&directory.path(0)).snapshot, first);
    assert_eq!(read(&directory.path(1)).snapshot.len(), 1);
    let journal = journal.expect("it has one");
    assert_eq!(journal.path(), directory.path(0));
    for _ in 0..2 {
        journal.remove().expect("our own file");
    }
    assert_eq!(directory.files(), 1);
    assert_eq!(aggregator.drain().len(), 1, "a report that was handed out needs no file");
    assert_eq!(directory.files(), 0);
    drop((aggregator.close(), aggregator.drain()));
    assert_eq!(directory.files(), 0, "an empty window never has one");
}

#[test]
fn what_is_written_after_the_removal_goes_nowhere() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    let (_, journal) = close(&aggregator);
    journal.expect("it has one").remove().expect("nothing to remove");
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    assert!(!directory.path(0).exists());
    assert!(directory.path(1).exists(), "the control");
}

#[test]
fn an_aggregator_that_is_dropped_leaves_its_file() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    drop(aggregator);
    assert_eq!(read(&directory.path(0)).snapshot.len(), 1);
}

#[test]
fn a_directory_that_somebody_deleted_is_made_again() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    fs::remove_dir(&directory.0).expect("it is empty");
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    assert_eq!(read(&directory.path(0)).snapshot.len(), 1);
}

#[test]
fn a_journal_that_cannot_be_made_is_given_up_until_the_next_window() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    fs::write(directory.path(0), b"in the way").expect("our own directory");
    watch(&aggregator, "m", &[("a", 0.5, "f1")]);
    watch(&aggregator, "m", &[("a", 0.75, "f2")]);
    let (held, journal) = close(&aggregator);
    let journal = journal.expect("it has one");
    assert_eq!(held.len(), 1);
    assert!(journal.error().is_some());
    journal.remove().expect("nothing of ours to remove");
    assert_eq!(fs::read(directory.path(0)).expect("still there"), b"in the way");
    watch(&aggregator, "m", &[("a", 0.5, "f3")]);
    let (held, journal) = close(&aggregator);
    assert_eq!(read(&directory.path(1)).snapshot, held);
    assert!(journal.expect("it has one").error().is_none(), "the control");
}

#[test]
fn a_class_stands_in_the_file_when_its_observation_returns() {
    let directory = Directory::new();
    let aggregator = directory.aggregator();
    std::thread::scope(|scope| {
        for thread in 0..3_u32 {
            let (aggregator, path) = (&aggregator, directory.path(0));
            scope.spawn(move || {
                for round in 0..150 {
                    let confidence = f64::from(round * 3 + thread);
                    watch(aggregator, "m", &[("a", confidence, "id")]);
                    let written = lines(&read(&path).snapshot);
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
    let recovered = read(&directory.path(0));
    let confidences =
        |snapshot: &Snapshot| lines(snapshot).into_iter().map(|line| (line.1, line.2)).collect::<Vec<_>>();
    assert_eq!(confidences(&recovered.snapshot), confidences(&aggregator.close().empty()));
    assert!(!recovered.damaged);
}

#[test]
fn files_made_ahead_go_with_their_windows_whoever_is_at_them() {
    let (directory, frames) = (Directory::new(), 450);
    let aggregator = directory.aggregator();
    let (at_work, made_ahead) = (AtomicU64::new(2), AtomicU64::new(0));
    let mut taken = 0;
    let mut end = |aggregator: &Aggregator| {
        let (snapshot, journal) = close(aggregator);
        taken += snapshot.len();
        journal.expect("all have one").remove().expect("it can be removed");
    };
    std::thread::scope(|scope| {
        for observer in 0..2 {
            let (aggregator, at_work) = (&aggregator, &at_work);
            scope.spawn(move || {
                for frame in 0..frames {
                    watch(aggregator, "m/1", &[(&format!("{observer} {frame}"), 0.5, "f")]);
                    std::thread::yield_now();
                }
                at_work.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            while at_work.load(Ordering::Relaxed) > 0 {
                aggregator.prepare_journal();
                made_ahead.fetch_add(1, Ordering::Relaxed);
            }
        });
        while at_work.load(Ordering::Relaxed) > 0 {
            end(&aggregator);
        }
    });
    aggregator.prepare_journal();
    assert_eq!(directory.files(), 1, "the control: one is made, used or not");
    end(&aggregator);
    assert!(made_ahead.into_inner() > 0);
    assert_eq!(taken, 2 * frames);
    assert_eq!(directory.files(), 0);
}

/// A journal of at least 4 KiB with the places where its records end.
fn journal_of_four_kib(directory: &Directory) -> (Vec<u8>, Vec<usize>) {
    let aggregator = directory.aggregator();
    let mut ends = vec![];
    let mut bytes = Vec::new();
    for round in 0_u32.. {
        let (model, id) = (format!("project/{}", round % 3), format!("0b8cf2ee-2c4c-4a5c-9f3a-{round:012}"));
        let names = [format!("class {}", round % 7), format!("类 {}", round % 5)];
        let frame: Vec<Row> = names.iter().map(|name| (name.clone(), f64::from(round) / 8.0, id.clone())).collect();
        observe(&aggregator, &model, &frame, 12, &mut Tally::default());
        bytes = fs::read(directory.path(0)).expect("a file");
        ends.push(bytes.len());
        if bytes.len() >= 4096 {
            break;
        }
    }
    (bytes, ends)
}

/// What is recovered of the journal up to each of the ends.
fn prefixes(bytes: &[u8], ends: &[usize]) -> Vec<Snapshot> {
    ends.iter().map(|&end| recover(&bytes[..end]).expect("a journal").snapshot).collect()
}

#[test]
fn a_journal_cut_anywhere_yields_its_whole_records() {
    let directory = Directory::new();
    let (bytes, ends) = journal_of_four_kib(&directory);
    let whole = prefixes(&bytes, &ends);
    for length in 0..bytes.len() {
        let recovered = recover(&bytes[..length]).expect("cut, not foreign");
        let records = ends.iter().filter(|&&end| end <= length).count();
        let wanted = records.checked_sub(1).map(|last| whole[last].clone()).unwrap_or_default();
        assert_eq!(recovered.snapshot, wanted, "cut at {length}");
        assert!(recovered.about.is_none_or(|about| about == ABOUT));
    }
    assert!(whole.windows(2).all(|pair| pair[0] != pair[1]), "the control: every record adds something");
}

#[test]
fn a_flip_of_any_byte_costs_its_record_and_those_after_it_only() {
    let directory = Directory::new();
    let (bytes, ends) = journal_of_four_kib(&directory);
    let whole = prefixes(&bytes, &ends);
    let mut refused = 0;
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            match recover(&damaged) {
                Ok(recovered) => {
                    let records = ends.iter().filter(|&&end| end <= at).count();
                    let wanted = records.checked_sub(1).map(|last| whole[last].clone()).unwrap_or_default();
                    assert_eq!((recovered.snapshot, recovered.damaged), (wanted, true), "flip at {at}");
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused <= 3 * 9, "only the magic bytes and the version make a file a stranger");
}

#[test]
fn newer_and_foreign_files_are_told_apart() {
    assert_eq!(recover(b"peakhold\x02whatever"), Err(JournalError::NewerVersion(2)));
    for foreign in [&b"SQLite format 3\0"[..], b"peakhold\x00", b"p\n"] {
        assert_eq!(recover(foreign), Err(JournalError::Foreign));
    }
    assert!(recover(b"").expect("cut").damaged);
}

#[test]
fn a_journal_whose_first_record_is_missing_tells_nothing() {
    let directory = Directory::new();
    let (bytes, ends) = journal_of_four_kib(&directory);
    for end in ends.iter().rev().skip(1) {
        let headless = [&bytes[..9], &bytes[*end..]].concat();
        assert_eq!(recover(&headless), Ok(Recovered { damaged: true, ..Recovered::default() }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn records_in_any_order_and_number_yield_the_same_peaks(order in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let directory = Directory::new();
        let aggregator = directory.aggregator();
        let mut ends = vec![];
        for round in 0..12_u32 {
            let confidence = f64::from(round);
            watch(&aggregator, "m/1", &[("a", confidence, "id"), ("b", confidence / 2.0, "id")]);
            ends.push(fs::read(directory.path(0)).expect("a file").len());
        }
        let bytes = fs::read(directory.path(0)).expect("a file");
        // Magic bytes and version; length, checksum, number of the window, and what it is about.
        let head = 9 + (8 + 1 + 1 + ABOUT.len());
        let starts: Vec<usize> = std::iter::once(head).chain(ends.iter().copied()).collect();
        let records: Vec<&[u8]> = starts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let mut shuffled = bytes[..head].to_vec();
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
        prop_assert_eq!(recover(&shuffled), recover(&bytes));
    }

    #[test]
    fn garbage_never_does_harm(garbage in prop::collection::vec(any::<u8>(), 0..300), keep in 0_usize..80) {
        let directory = Directory::new();
        let aggregator = directory.aggregator();
        watch(&aggregator, "m", &[("a", 0.5, "id")]);
        let whole = fs::read(directory.path(0)).expect("a file");
        let mut bytes = whole[..keep.min(whole.len())].to_vec();
        bytes.extend(&garbage);
        if let Ok(recovered) = recover(&bytes) {
            prop_assert!(recovered.snapshot.is_empty() || bytes.starts_with(&whole));
        }
    }
}

#[test]
fn journals_beyond_their_limit_are_given_up_and_the_room_comes_back() {
    let directory = Directory::new();
    let aggregator = directory.limited(10_000);
    let fill = |rounds: u32| {
        for round in 1..=rounds {
            watch(&aggregator, "m", &[("a", f64::from(round) / f64::from(rounds), &"x".repeat(1_000))]);
        }
        close(&aggregator)
    };
    let (first, journal) = fill(100);
    let journal = journal.expect("it has one");
    assert!(journal.error().expect("the limit").to_string().contains("limit"));
    assert!(fs::metadata(journal.path()).expect("a file").len() <= 10_000);
    assert_eq!(lines(&first).len(), 1, "the window itself has everything");
    journal.remove().expect("our own file");
    drop(journal);
    assert!(fill(1).1.expect("it has one").error().is_none(), "there is room again");
}
