//! Whole frames of columns in memory: reduced, observed, drained, merged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peakhold::{Aggregator, Confidences, Encoding, Frame, Name, Names, Number, Snapshot, Tally, Texts, fuzzing};
use peakhold_fuzz::input::Input;
use peakhold_fuzz::plain::{self, Detection};
use peakhold_fuzz::rows::Rows;

/// A column of text of fixed width.
struct TextColumn {
    rows: Rows,
    encoding: Encoding,
}

impl TextColumn {
    fn new(input: &mut Input<'_>, rows: usize) -> Self {
        if input.flag() {
            // As most arrays are.
            let width = 4 * (1 + input.below(20));
            return Self { rows: Rows::contiguous(input, rows, width), encoding: Encoding::Native };
        }
        let encoding = input.encoding();
        let units = 1 + input.below(24);
        let width = if encoding == Encoding::Utf8 { units } else { 4 * units };
        Self { rows: Rows::exactly(input, rows, width), encoding }
    }
}

/// A column of numbers.
struct NumberColumn {
    rows: Rows,
    number: Number,
    swapped: bool,
}

impl NumberColumn {
    fn new(input: &mut Input<'_>, rows: usize) -> Self {
        if input.flag() {
            // As most arrays are.
            return Self { rows: Rows::contiguous(input, rows, 4), number: Number::F32, swapped: false };
        }
        let (number, swapped) = (input.number(), input.flag());
        let width = number.width() + input.below(5);
        Self { rows: Rows::exactly(input, rows, width), number, swapped }
    }
}

enum Labels {
    Missing,
    Texts(TextColumn),
    Ids(NumberColumn, Vec<(i64, Name)>),
}

impl Labels {
    fn new(input: &mut Input<'_>, rows: usize) -> Self {
        match input.byte() % 4 {
            0 => Self::Missing,
            1 => {
                let column = NumberColumn::new(input, rows);
                // Some ids have a name, one name belongs to two of them, and one id has a name that is unusable.
                let name = |letter: char| Ok(u32::from(letter).to_ne_bytes().into());
                let names =
                    [(-1, name('a')), (0, name('b')), (1, Err(peakhold::Reason::ClassNameTooLong)), (7, name('a'))];
                Self::Ids(column, names.into())
            }
            _ => Self::Texts(TextColumn::new(input, rows)),
        }
    }

    fn names(&self) -> Names<'_> {
        match self {
            Self::Missing => Names::Missing,
            Self::Texts(TextColumn { rows, encoding }) => Names::Rows { column: rows.column(), encoding: *encoding },
            Self::Ids(NumberColumn { rows, number, swapped }, names) => {
                Names::Ids { column: rows.column(), number: *number, swapped: *swapped, names }
            }
        }
    }

    /// The name of a row by the plain readers, if it has one.
    fn plain(&self, row: usize) -> Option<String> {
        match self {
            Self::Missing => Some(String::new()),
            Self::Texts(TextColumn { rows, encoding }) => plain::class_name(*encoding, rows.row(row)).ok(),
            Self::Ids(NumberColumn { rows, number, swapped }, _) => {
                match plain::integer(*number, rows.row(row), *swapped)? {
                    -1 | 7 => Some("a".to_owned()),
                    0 => Some("b".to_owned()),
                    _ => None,
                }
            }
        }
    }
}

/// Inference ids from a column; there are no prediction types.
struct Ids<'a>(&'a TextColumn);

impl Texts for Ids<'_> {
    fn inference_id(&mut self, row: usize, text: &mut String) -> bool {
        let read = fuzzing::text(self.0.encoding, self.0.rows.column().row(row));
        *text = read.clone().unwrap_or_default();
        read.is_some()
    }

    fn prediction_type(&mut self, _: usize, _: &mut String) -> bool {
        false
    }
}

/// Observes a frame as the input has it, and appends the rows that the plain readers take from it.
fn observe(input: &mut Input<'_>, aggregator: &Aggregator, model: &str, detections: &mut Vec<Detection>) {
    let rows = input.below(400);
    let confidences = if input.byte().is_multiple_of(8) { None } else { Some(NumberColumn::new(input, rows)) };
    let (labels, ids) = (Labels::new(input, rows), TextColumn::new(input, rows));
    let core = confidences.as_ref().map_or(Confidences::Missing, |NumberColumn { rows, number, swapped }| {
        Confidences::Numbers { column: rows.column(), number: *number, swapped: *swapped }
    });
    // A column that is far apart may have fewer rows, and then the frame is refused.
    let Ok(mut frame) = Frame::new(ids.rows.len(), core, labels.names()) else { return };
    let hints = input.flag().then(|| Rows::contiguous(input, frame.rows(), 8));
    if let Some(hints) = &hints {
        frame = frame.with_hints(hints.column());
    }
    let before = detections.len();
    for row in 0..frame.rows() {
        let confidence = confidences
            .as_ref()
            .map_or(0.0, |NumberColumn { rows, number, swapped }| plain::number(*number, rows.row(row), *swapped));
        if let (true, Some(name)) = (confidence.is_finite(), labels.plain(row)) {
            let id = plain::class_name(ids.encoding, ids.rows.row(row)).unwrap_or_default();
            detections.push((model.to_owned(), name, confidence, id));
        }
    }
    let taken = aggregator.observe(model, &frame, &mut Ids(&ids), &mut Tally::default());
    assert_eq!(taken, detections.len() - before);
}

fn lines(snapshot: &Snapshot) -> Vec<(String, String, u64, String)> {
    let line = |line: peakhold::Representative<'_>| {
        let peak = line.peak;
        (line.model_id.to_owned(), line.class_name.to_owned(), peak.confidence.to_bits(), peak.inference_id.clone())
    };
    snapshot.report().into_iter().map(line).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let aggregator = Aggregator::default();
    let (mut models, mut detections) = (Vec::new(), Vec::new());
    for _ in 0..=input.byte() % 3 {
        let model = ["m/1", "m/2"][usize::from(input.flag())].to_owned();
        if !models.contains(&model) {
            models.push(model.clone());
            // A frame without rows gives its model a place.
            let empty = Frame::new(0, Confidences::Missing, Names::Missing).expect("no rows, no columns");
            let rows = Rows::exactly(&mut Input::new(&[]), 0, 1);
            let none = TextColumn { rows, encoding: Encoding::Utf8 };
            assert_eq!(aggregator.observe(&model, &empty, &mut Ids(&none), &mut Tally::default()), 0);
        }
        observe(&mut input, &aggregator, &model, &mut detections);
    }
    let snapshot = aggregator.drain();
    let wanted = plain::report(&models, &detections);
    let wanted: Vec<_> =
        wanted.into_iter().map(|(model, name, confidence, id)| (model, name, confidence.to_bits(), id)).collect();
    assert_eq!(lines(&snapshot), wanted);
    let decoded = Snapshot::decode(&snapshot.encode()).expect("just encoded");
    assert_eq!(lines(&decoded), wanted);
});
