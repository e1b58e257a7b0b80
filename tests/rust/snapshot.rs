//! Merging is an order-free maximum, and bytes are read back as they were or refused.

use peakhold::{ClassPeak, Place, Representative, Snapshot};
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

fn place() -> impl Strategy<Value = Place> {
    (0..3_u64, 0..3_u64, 0..5_u64).prop_map(|(window, model, arrival)| Place { window, model, arrival })
}

fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![prop::sample::select(vec![0.0, -0.0, 0.5, 1.0]), -1e300..1e300]
}

fn peak(confidence: impl Strategy<Value = f64>) -> impl Strategy<Value = ClassPeak> {
    (place(), place(), confidence, "[ab]{0,2}", "[xy]?").prop_map(
        |(first, at, confidence, inference_id, prediction_type)| ClassPeak {
            first,
            at,
            confidence,
            inference_id,
            prediction_type,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    snapshot_of(finite())
}

/// Windows do not take NaN; merging does not depend on that.
fn with_nan() -> impl Strategy<Value = Snapshot> {
    snapshot_of(prop_oneof![4 => finite(), 1 => prop::sample::select(vec![f64::NAN, -f64::NAN])])
}

fn snapshot_of(confidence: impl Strategy<Value = f64>) -> impl Strategy<Value = Snapshot> {
    let entry = (prop::sample::select(vec!["m/1", "m/2"]), "[ab人]", peak(confidence));
    prop::collection::vec(entry, 0..8).prop_map(|entries| {
        let mut snapshot = Snapshot::default();
        for (model_id, class_name, peak) in entries {
            snapshot.insert(model_id, class_name, peak);
        }
        snapshot
    })
}

fn merge(one: &Snapshot, other: &Snapshot) -> Snapshot {
    let mut both = one.clone();
    both.merge(other.clone());
    both
}

/// A merge that forgets about ties and NaN: what is there stays unless the other confidence is greater.
fn merge_carelessly(one: &Snapshot, other: &Snapshot) -> Snapshot {
    let mut both = Snapshot::default();
    let (mine, others) = (one.report(), other.report());
    for line in mine.iter().chain(&others) {
        let better = |rival: &Representative<'_>| {
            rival.class_name == line.class_name && rival.peak.confidence > line.peak.confidence
        };
        let there = both.report().iter().any(|held| held.class_name == line.class_name);
        if !there && !others.iter().any(better) {
            both.insert(line.model_id, line.class_name.to_owned(), line.peak.clone());
        }
    }
    both
}

type Merge = fn(&Snapshot, &Snapshot) -> Snapshot;

/// Encodings are compared: they tell `-0.0` from `0.0`, and NaN equals itself.
fn obeys_the_laws(merge: Merge, [a, b, c]: [&Snapshot; 3]) -> Result<(), TestCaseError> {
    prop_assert_eq!(merge(a, b).encode(), merge(b, a).encode());
    prop_assert_eq!(merge(&merge(a, b), c).encode(), merge(a, &merge(b, c)).encode());
    prop_assert_eq!(merge(a, a).encode(), a.encode());
    Ok(())
}

#[test]
fn a_careless_merge_breaks_the_laws() {
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) });
    let windows = (with_nan(), with_nan(), with_nan());
    let outcome = runner.run(&windows, |(a, b, c)| obeys_the_laws(merge_carelessly, [&a, &b, &c]));
    assert!(matches!(outcome, Err(TestError::Fail(..))), "the control");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(a in with_nan(), b in with_nan(), c in with_nan()) {
        obeys_the_laws(merge, [&a, &b, &c])?;
    }

    #[test]
    fn an_encoded_snapshot_is_read_back(snapshot in snapshot()) {
        let decoded = Snapshot::decode(&snapshot.encode()).expect("just encoded");
        prop_assert_eq!(decoded.encode(), snapshot.encode());
    }

    #[test]
    fn damaged_bytes_are_refused_or_hold_finite_peaks(snapshot in snapshot(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = snapshot.encode();
        let at = at.index(bytes.len());
        prop_assert!(Snapshot::decode(&bytes[..at]).is_err());
        bytes[at] ^= flip;
        if let Ok(decoded) = Snapshot::decode(&bytes) {
            prop_assert!(decoded.report().iter().all(|line| line.peak.confidence.is_finite()));
        }
    }
}

#[test]
fn a_confidence_that_is_not_finite_is_refused() {
    let at = Place { window: 0, model: 0, arrival: 0 };
    for confidence in [f64::NAN, f64::INFINITY] {
        let mut snapshot = Snapshot::default();
        let text = String::new;
        snapshot.insert(
            "m",
            text(),
            ClassPeak { first: at, at, confidence, inference_id: text(), prediction_type: text() },
        );
        assert!(Snapshot::decode(&snapshot.encode()).is_err());
    }
}
