//! Frames made from plain rows, and lines of reports.

use peakhold::{Aggregator, Column, Confidences, Encoding, Frame, Names, Number, Representative, Tally, Texts};

/// One detection: class name, confidence, inference id.
pub type Row = (String, f64, String);

/// Inference ids by row; every prediction type is `"test"`.
pub struct Ids<'a>(pub &'a [Row]);

impl Texts for Ids<'_> {
    fn inference_id(&mut self, row: usize, text: &mut String) -> bool {
        text.clear();
        text.push_str(&self.0[row].2);
        true
    }

    fn prediction_type(&mut self, _: usize, text: &mut String) -> bool {
        text.clear();
        text.push_str("test");
        true
    }
}

/// Observes rows as an array would hold them: names in rows of `width` code points, confidences as f64.
pub fn observe(aggregator: &Aggregator, model: &str, rows: &[Row], width: usize, tally: &mut Tally) -> usize {
    let mut names = Vec::new();
    for (name, _, _) in rows {
        let mut row: Vec<u8> = name.chars().flat_map(|c| u32::from(c).to_ne_bytes()).collect();
        row.resize(4 * width, 0);
        names.extend(row);
    }
    let confidences: Vec<u8> = rows.iter().flat_map(|row| row.1.to_ne_bytes()).collect();
    let confidences =
        Confidences::Numbers { column: Column::from_bytes(&confidences, 8), number: Number::F64, swapped: false };
    let names = Names::Rows { column: Column::from_bytes(&names, 4 * width), encoding: Encoding::Native };
    let frame = Frame::new(rows.len(), confidences, names).expect("columns of one length");
    aggregator.observe(model, &frame, &mut Ids(rows), tally)
}

/// A line of a report, owned.
pub type Line = (String, String, u64, String);

pub fn line(representative: &Representative<'_>) -> Line {
    let Representative { model_id, class_name, peak } = representative;
    ((*model_id).to_owned(), (*class_name).to_owned(), peak.confidence.to_bits(), peak.inference_id.clone())
}
