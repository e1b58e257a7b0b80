//! The consolidation of a window, by example.

use crate::model::{Plain, Rule};
use crate::support::{Line, Row, line, observe};
use peakhold::{Aggregator, Tally};

#[test]
fn the_report_is_the_one_that_was_seen() {
    let row = |name: &str, confidence, id: &str| (name.to_owned(), confidence, id.to_owned());
    let frames = [
        ("m1".to_owned(), vec![row("a", 0.5, "id1"), row("b", 0.9, "id2")]),
        ("m2".to_owned(), vec![row("b", 0.5, "id3"), row("a", 0.9, "id4")]),
        ("m1".to_owned(), vec![row("a", 0.9, "id5"), row("c", 0.9, "id6")]),
    ];
    let (aggregator, mut plain) = (Aggregator::default(), Plain::new(Rule::AsSpecified));
    for (model, rows) in &frames {
        observe(&aggregator, model, rows, 4, &mut Tally::default());
        plain.observe(model, rows);
    }
    let wanted = [("m1", "a", "id5"), ("m1", "b", "id2"), ("m1", "c", "id6")];
    let wanted: Vec<Line> = wanted
        .into_iter()
        .map(|(model, class, id)| (model.to_owned(), class.to_owned(), 0.9_f64.to_bits(), id.to_owned()))
        .collect();
    assert_eq!(plain.drain().report(), wanted);
    assert_eq!(aggregator.drain().report().iter().map(line).collect::<Vec<_>>(), wanted);
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
