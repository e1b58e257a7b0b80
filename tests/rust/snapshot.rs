//! Merging is an order-free maximum, and bytes are read back as they were or refused.

use peakhold::{ClassPeak, Place, Snapshot};
use proptest::prelude::*;

fn place() -> impl Strategy<Value = Place> {
    (0..3_u64, 0..3_u64, 0..5_u64).prop_map(|(window, model, arrival)| Place { window, model, arrival })
}

fn peak() -> impl Strategy<Value = ClassPeak> {
    let confidence = prop_oneof![prop::sample::select(vec![0.0, -0.0, 0.5, 1.0]), -1e300..1e300];
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
    let entry = (prop::sample::select(vec!["m/1", "m/2"]), "[ab人]", peak());
    prop::collection::vec(entry, 0..8).prop_map(|entries| {
        let mut snapshot = Snapshot::default();
        for (model_id, class_name, peak) in entries {
            snapshot.insert(model_id, class_name, peak);
        }
        snapshot
    })
}

/// Equality that tells `-0.0` from `0.0`.
fn merged(windows: &[&Snapshot]) -> Vec<u8> {
    let mut all = Snapshot::default();
    for window in windows {
        all.merge((*window).clone());
    }
    all.encode()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(a in snapshot(), b in snapshot(), c in snapshot()) {
        prop_assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
        let mut right = b.clone();
        right.merge(c.clone());
        prop_assert_eq!(merged(&[&a, &b, &c]), merged(&[&a, &right]));
        prop_assert_eq!(merged(&[&a, &a]), a.encode());
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
