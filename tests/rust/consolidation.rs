//! The consolidation of a window, by example.

use crate::model::{Plain, Rule};
use crate::support::{Ids, Line, Row, line, observe};
use peakhold::{Aggregator, Column, Confidences, Encoding, Frame, Name, Names, Number, Tally, Texts};

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

#[test]
fn among_equals_of_one_name_the_first_row_is_reported_whatever_their_ids() {
    // Both ids are "a"; the greatest confidence comes with id 2 first, whose class appears second.
    let ids: Vec<u8> = [1_i32, 2, 1].iter().flat_map(|id| id.to_ne_bytes()).collect();
    let names: [(i64, Name); 2] = [1, 2].map(|id| (id, Ok(u32::from('a').to_ne_bytes().into())));
    let column = Column::from_bytes(&ids, 4);
    let names = Names::Ids { column, number: Number::I32, swapped: false, names: &names };
    let frame =
        Frame::new(3, Confidences::Values(&[Ok(0.25), Ok(0.5), Ok(0.5)]), names).expect("columns of one length");
    let rows: [Row; 3] = ["id1", "id2", "id3"].map(|id| (String::new(), 0.0, id.to_owned()));
    let aggregator = Aggregator::default();
    assert_eq!(aggregator.observe("m", &frame, &mut Ids(&rows), &mut Tally::default()), 3);
    let snapshot = aggregator.drain();
    let report = snapshot.report();
    let [line] = &report[..] else { panic!("one class, not {report:?}") };
    assert_eq!((line.peak.inference_id.as_str(), line.peak.at.arrival, line.peak.first.arrival), ("id2", 1, 0));
}

/// Inference ids that are missing; when one is read, another thread might write the array just then.
struct Overwriting(*mut u8);

impl Texts for Overwriting {
    fn inference_id(&mut self, _: usize, _: &mut String) -> bool {
        // SAFETY: the test's own memory, which nobody looks at while texts are read.
        unsafe { self.0.write(b'c') };
        false
    }

    fn prediction_type(&mut self, _: usize, _: &mut String) -> bool {
        false
    }
}

#[test]
fn a_name_that_is_overwritten_after_it_was_read_is_not_read_again() {
    let mut memory = *b"ab";
    let first = memory.as_mut_ptr();
    let observe = |aggregator: &Aggregator| {
        // SAFETY: two rows of one byte, alive until the end of the test.
        let column = unsafe { Column::from_raw(first, 1, 2, 1) };
        let names = Names::Rows { column, encoding: Encoding::Utf8 };
        let frame = Frame::new(2, Confidences::Missing, names).expect("columns of one length");
        // SAFETY: the second row.
        let mut texts = Overwriting(unsafe { first.add(1) });
        aggregator.observe("m", &frame, &mut texts, &mut Tally::default());
        let window = aggregator.drain();
        window.report().iter().map(|line| line.class_name.to_owned()).collect::<Vec<_>>()
    };
    let aggregator = Aggregator::default();
    assert_eq!(observe(&aggregator), ["a", "b"]);
    assert_eq!(observe(&aggregator), ["a", "c"]);
}
