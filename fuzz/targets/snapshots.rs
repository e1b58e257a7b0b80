//! Bytes that may be an encoded snapshot.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peakhold::Snapshot;

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = Snapshot::decode(bytes) else { return };
    let report = snapshot.report();
    assert!(report.len() <= snapshot.len());
    assert!(report.iter().all(|line| line.peak.confidence.is_finite()));
    let encoded = snapshot.encode();
    assert_eq!(Snapshot::decode(&encoded).map(|again| again.encode()), Ok(encoded.clone()));
    let mut twice = snapshot.clone();
    twice.merge(snapshot);
    assert_eq!(twice.encode(), encoded);
});
