//! The aggregator against the plain rule, on random streams.

use crate::support::{Line, Row, line, observe, plain_report};
use peakhold::{Aggregator, Tally};
use proptest::prelude::*;

fn confidence() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => prop::sample::select(vec![0.0, -0.0, 0.25, 0.5, 0.9, 1.0]),
        3 => 0.0..1.0,
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -3.5, 1e300]),
    ]
}

fn row() -> impl Strategy<Value = (String, f64)> {
    (prop::sample::select(vec!["", "a", "b", "c", "person", "人", "🦀 crab", "a\0b"]), confidence())
        .prop_map(|(name, confidence)| (name.to_owned(), confidence))
}

/// Frames of a window, each with its model and the width of its name rows.
fn frames() -> impl Strategy<Value = Vec<(String, Vec<Row>, usize)>> {
    let model = prop::sample::select(vec!["m/1", "m/2", "other/7"]);
    let frame = (model, prop::collection::vec(row(), 0..12), 6_usize..20);
    prop::collection::vec(frame, 0..12).prop_map(|frames| {
        let mut detection = 0;
        let mut id = || {
            detection += 1;
            format!("id{detection}")
        };
        let mut with_ids =
            |rows: Vec<(String, f64)>| rows.into_iter().map(|(name, confidence)| (name, confidence, id())).collect();
        frames.into_iter().map(|(model, rows, width)| (model.to_owned(), with_ids(rows), width)).collect()
    })
}

fn reported(aggregator: &Aggregator) -> Vec<Line> {
    aggregator.drain().report().iter().map(line).collect()
}

proptest! {
    #[test]
    fn every_window_is_reported_as_the_rule_has_it(windows in prop::collection::vec(frames(), 1..4)) {
        let aggregator = Aggregator::default();
        for frames in windows {
            let mut tally = Tally::default();
            for (model, rows, width) in &frames {
                let usable = rows.iter().filter(|row| row.1.is_finite()).count();
                prop_assert_eq!(observe(&aggregator, model, rows, *width, &mut tally), usable);
            }
            let plain: Vec<_> = frames.into_iter().map(|(model, rows, _)| (model, rows)).collect();
            prop_assert_eq!(reported(&aggregator), plain_report(&plain));
            prop_assert_eq!(aggregator.peaks(), 0);
        }
    }
}

#[test]
fn the_plain_rule_gives_the_report_that_was_seen() {
    let row = |name: &str, confidence, id: &str| (name.to_owned(), confidence, id.to_owned());
    let frames = [
        ("m1".to_owned(), vec![row("a", 0.5, "id1"), row("b", 0.9, "id2")]),
        ("m2".to_owned(), vec![row("b", 0.5, "id3"), row("a", 0.9, "id4")]),
        ("m1".to_owned(), vec![row("a", 0.9, "id5"), row("c", 0.9, "id6")]),
    ];
    let aggregator = Aggregator::default();
    for (model, rows) in &frames {
        observe(&aggregator, model, rows, 4, &mut Tally::default());
    }
    let wanted = [("m1", "a", "id5"), ("m1", "b", "id2"), ("m1", "c", "id6")];
    let wanted: Vec<Line> = wanted
        .into_iter()
        .map(|(model, class, id)| (model.to_owned(), class.to_owned(), 0.9_f64.to_bits(), id.to_owned()))
        .collect();
    assert_eq!(plain_report(&frames), wanted);
    assert_eq!(reported(&aggregator), wanted);
}

#[test]
fn a_window_holds_no_more_classes_than_its_limit() {
    let aggregator = Aggregator::new(3);
    let rows: Vec<Row> = (0..5).map(|class| (format!("class {class}"), 0.5, String::new())).collect();
    let mut tally = Tally::default();
    assert_eq!(observe(&aggregator, "m", &rows, 8, &mut tally), 3);
    let again: Vec<Row> = rows.iter().map(|row| (row.0.clone(), 0.75, String::new())).collect();
    assert_eq!(observe(&aggregator, "m", &again, 8, &mut tally), 3);
    let rejections = peakhold::Rejections::default();
    rejections.add(&tally, |_| {});
    assert_eq!(rejections.counts().collect::<Vec<_>>(), [(peakhold::Reason::TooManyClasses, 4)]);
    let snapshot = aggregator.drain();
    assert!(snapshot.report().iter().all(|line| (line.peak.confidence - 0.75).abs() < f64::EPSILON));
    assert_eq!(observe(&aggregator, "m", &rows, 8, &mut tally), 3, "a new window has room again");
}
