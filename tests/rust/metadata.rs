//! Metadata in the journal: batches that end as requests do, and a disk that stays bounded.

use crate::journal::Directory;
use peakhold::{Aggregator, MetadataJournal, Registered, Registration};
use std::sync::Arc;

fn register(metadata: &MetadataJournal, ids: usize, length: usize) -> (Arc<peakhold::MetadataBatch>, u64) {
    let mut registration = Registration::new(b"field", b"value", ids);
    for number in 0..ids {
        registration.push(format!("{number:0length$}").as_bytes());
    }
    metadata.append(&registration)
}

#[test]
fn what_was_registered_is_recovered_frame_by_frame() {
    let directory = Directory::new();
    let metadata = MetadataJournal::new(directory.journal(u64::MAX), b"whose");
    for (value, id) in [("a", "x".repeat(127)), ("b", "y".repeat(128)), ("", String::new())] {
        let mut registration = Registration::new("名".as_bytes(), value.as_bytes(), 1);
        registration.push(id.as_bytes());
        registration.push(b"second");
        metadata.append(&registration);
    }
    let recovered = directory.recovered();
    let batch = recovered.windows.values().next().expect("a batch");
    assert_eq!((recovered.windows.len(), recovered.unknown, batch.about.as_deref()), (1, 0, Some(&b"whose"[..])));
    let values: Vec<_> = batch.metadata.values().map(|frame| frame.value.as_slice()).collect();
    assert_eq!(values, [&b"a"[..], b"b", b""]);
    assert_eq!(
        batch.metadata[&1],
        Registered {
            name: "名".as_bytes().to_vec(),
            value: b"b".to_vec(),
            ids: vec![vec![b'y'; 128], b"second".to_vec()],
        }
    );
}

#[test]
fn a_batch_ends_before_the_frame_that_would_overfill_a_request() {
    let directory = Directory::new();
    let metadata = MetadataJournal::new(directory.journal(u64::MAX), b"");
    let batches: Vec<_> = (0..3).map(|_| register(&metadata, 400, 3)).collect();
    assert_eq!((batches[0].0.frames(), batches[2].0.frames()), (Some(2), None));
    assert_eq!(batches.iter().map(|&(_, number)| number).collect::<Vec<_>>(), [0, 1, 0]);
    let (long, _) = register(&metadata, 400, 700);
    assert_eq!(batches[2].0.frames(), Some(1), "bytes count, too");
    let (more, _) = register(&metadata, 1_500, 3);
    assert_eq!((long.frames(), more.frames()), (Some(1), None), "a frame stays whole");
    metadata.cut();
    metadata.cut();
    assert_eq!((more.frames(), register(&metadata, 1, 3).1), (Some(1), 0));
}

#[test]
fn hours_of_metadata_keep_the_disk_bounded_though_a_window_stays_open() {
    let directory = Directory::new();
    let journal = directory.journal(u64::MAX);
    let old = Aggregator::journaled(10, journal.clone(), b"");
    let metadata = MetadataJournal::new(journal.clone(), b"");
    let (waiting, _) = register(&MetadataJournal::new(journal.clone(), b"waits"), 2, 3);
    crate::support::observe(&old, "m", &[("old".into(), 0.5, "f".into())], 8, &mut peakhold::Tally::default());
    let (mut longest, mut written) = (0, 0);
    for round in 0..700 {
        let (batch, _) = register(&metadata, 1_000, 100);
        metadata.cut();
        batch.journal().remove().expect("our own files");
        written += 100_000;
        if round % 50 == 0 {
            journal.tidy().expect("our own files");
            longest = longest.max(directory.segments().len());
        }
    }
    assert!(written > 66 << 20 && longest <= 10, "{longest} segments of 4 MiB");
    let recovered = directory.recovered();
    let kept: Vec<_> = recovered.windows.values().map(|each| (each.metadata.len(), each.snapshot.len())).collect();
    assert_eq!((kept, recovered.damaged), (vec![(0, 1), (1, 0)], 0), "what waits was copied");
    waiting.journal().remove().expect("our own files");
    assert_eq!(old.drain().len(), 1);
    assert!(directory.segments().is_empty());
}
