//! A frame reduced to its own winners.
//!
//! A window is shared and takes atomics; a frame is not and takes none. So a frame of a thousand detections in twenty classes is first
//! reduced to twenty winners, and only these are published. Rows of one column are compared by their raw bytes, since one column has one
//! encoding; the canonical form of a name is made for winners only. Class ids that share a name have a winner each and meet in the window.
//!
//! The next frame of the model most likely holds the same classes, so the table of their names outlives the frame, as far as raw bytes mean the
//! same in the next one. With each name it keeps where the window was found to hold its class, see [`crate::memo`].

use crate::column::Number;
use crate::counter::FrameCounts;
use crate::frame::{Confidences, Frame, Names, Spelling};
use crate::label::Encoding;
use crate::memo::{Holder, Memo};
use crate::reject::{Reason, Tally};
use crate::rows::{RowHasher, equal};
use crate::statistics::is_probability;
use std::hint::select_unpredictable;

/// A class of a frame, by its name as the frame spells it, and its best row.
pub(crate) struct Winner<C> {
    /// The first row with the greatest confidence.
    pub(crate) row: usize,
    /// The first usable row of the class.
    pub(crate) first: usize,
    /// Usable rows of the class.
    pub(crate) rows: usize,
    pub(crate) confidence: f64,
    /// Where a window holds the class.
    pub(crate) class: Memo<C>,
    /// Number of the frame that the rest is about.
    frame: u64,
    hash: u64,
    /// The class name as its rows spell it.
    pub(crate) name: Box<[u8]>,
}

/// Working memory for the frames of one model, kept between them; `M` and `C` are what a window holds for models and classes.
pub(crate) struct Reduction<M, C> {
    /// Number of the aggregator that the frames are for.
    aggregator: Option<Holder>,
    /// Id of the model.
    model_id: String,
    /// Where the window holds the model.
    pub(crate) model: Memo<M>,
    /// Memory for a canonical name.
    pub(crate) name: Vec<u8>,
    /// One entry for each name known, this frame's or not.
    names: Vec<Winner<C>>,
    /// What these take.
    bytes: usize,
    /// Whether rows are counted, and the counts of each name of the frame; empty if they never were.
    counting: bool,
    counts: Vec<FrameCounts>,
    /// Winners whose counts a window has.
    counted: usize,
    /// The winners of the frame as places in `names`, in the order in which their classes appear, or of their rows if classes are ids.
    order: Vec<u32>,
    /// Open addressing: one more than a place in `names`, or zero.
    table: Vec<u32>,
    /// By hint what the table has for the name that came with it last.
    hinted: Vec<u32>,
    /// How raw bytes spell names, if they mean in the next frame what they meant in the last.
    encoding: Option<Encoding>,
    frame: u64,
    hasher: RowHasher,
}

impl<M, C> Default for Reduction<M, C> {
    fn default() -> Self {
        Self {
            aggregator: None,
            model_id: String::new(),
            model: Memo::default(),
            name: Vec::new(),
            names: Vec::new(),
            bytes: 0,
            counting: false,
            counts: Vec::new(),
            counted: 0,
            order: Vec::new(),
            table: vec![0; SMALLEST_TABLE],
            hinted: Vec::new(),
            encoding: None,
            frame: 0,
            hasher: RowHasher::default(),
        }
    }
}

/// Roomy for the usual number of classes, so that a probe rarely meets a neighbour.
const SMALLEST_TABLE: usize = 256;
/// Numbers up to this are hints.
const MOST_HINTED: usize = 1 << 10;
/// A number that never is a hint.
const NO_HINT: usize = usize::MAX;
/// Names, and bytes of names, beyond which the memory is given back with the frame: a stream of ever new names must not take it.
const MOST_NAMES_KEPT: usize = 1 << 12;
const MOST_BYTES_KEPT: usize = 1 << 20;

impl<M, C> Reduction<M, C> {
    /// Whether several of them together are worth keeping for the next frames.
    pub(crate) fn are_small<'a>(reductions: impl Iterator<Item = &'a Self>) -> bool
    where
        Self: 'a,
    {
        let (names, bytes) =
            reductions.fold((0, 0), |(names, bytes), each| (names + each.names.len(), bytes + each.bytes));
        names <= MOST_NAMES_KEPT && bytes <= MOST_BYTES_KEPT
    }

    /// Whether the memory is small enough for as many of them as that to be kept.
    pub(crate) const fn is_small_among(&self, number: usize) -> bool {
        self.names.len() <= MOST_NAMES_KEPT / number && self.bytes <= MOST_BYTES_KEPT / number
    }

    /// Whether the memory is that of no model.
    pub(crate) const fn is_free(&self) -> bool {
        self.aggregator.is_none()
    }

    /// Whether the memory is that of this model.
    #[inline]
    pub(crate) fn is_of(&self, aggregator: Holder, model_id: &str) -> bool {
        self.aggregator == Some(aggregator) && self.model_id == model_id
    }

    /// Makes the memory that of another model. The names stay: it may well know the same.
    pub(crate) fn give_to(&mut self, aggregator: Holder, model_id: &str) {
        self.aggregator = Some(aggregator);
        self.model_id.clear();
        self.model_id.push_str(model_id);
        self.model = Memo::default();
    }

    /// The number of winners.
    pub(crate) fn winners(&self) -> usize {
        self.order.len()
    }

    /// A winner, counted in the order in which the classes appear, beside what else the window needs.
    pub(crate) fn winner(&mut self, number: usize) -> (&mut Winner<C>, &mut Vec<u8>) {
        (&mut self.names[self.order[number] as usize], &mut self.name)
    }

    /// Likewise, with what was counted of it, if rows are counted and no window has it yet.
    pub(crate) fn uncounted(&mut self, number: usize) -> Option<(&mut Winner<C>, &mut Vec<u8>, &FrameCounts)> {
        let at = self.order[number] as usize;
        let counts = self.counts.get(at).filter(|_| self.counting && number >= self.counted)?;
        Some((&mut self.names[at], &mut self.name, counts))
    }

    /// Notes that a window has what was counted of the winners before this number.
    pub(crate) const fn set_counted(&mut self, winners: usize) {
        self.counted = winners;
    }

    /// Begins with a frame whose names are spelled like that, and whose rows are counted or not.
    #[inline]
    pub(crate) fn begin(&mut self, spelling: Spelling<'_>, counting: bool) {
        if counting != self.counting {
            self.counting = counting;
            self.counts.clear();
            self.counts.resize(if counting { self.names.len() } else { 0 }, FrameCounts::new());
        }
        let encoding = if let Spelling::Text(encoding) = spelling { Some(encoding) } else { None };
        if encoding.is_none() || encoding != self.encoding {
            self.forget();
            self.encoding = encoding;
        }
        self.order.clear();
        self.counted = 0;
        self.frame += 1;
    }

    /// Reduces a frame to its winners and counts the rows that cannot be used.
    pub(crate) fn reduce(&mut self, frame: &Frame<'_>, counting: bool, tally: &mut Tally) {
        self.begin(frame.names.spelling(), counting);
        // What model blocks make, for the usual lengths of names: the compiler knows the width and hashes and compares a row without loops.
        macro_rules! contiguous {
            ($($characters:literal)*) => {
                if let Confidences::Numbers { column, number: Number::F32, swapped: false } = frame.confidences
                    && let Some(confidences) = column.as_arrays()
                    && let Names::Rows { column, .. } = frame.names
                {
                    match column.width() / 4 {
                        $($characters => {
                            if let Some(names) = column.as_arrays() {
                                return if counting {
                                    self.reduce_arrays::<{ 4 * $characters }, true>(confidences, names, frame.hints, tally)
                                } else {
                                    self.reduce_arrays::<{ 4 * $characters }, false>(confidences, names, frame.hints, tally)
                                };
                            }
                        })*
                        _ => {}
                    }
                }
            };
        }
        contiguous!(4 5 6 7 8 9 10 11 12 13 14 15 16);
        match frame.names {
            Names::Rows { column, .. } | Names::Ids { column, .. } => {
                self.reduce_rows(frame, tally, column.iter().map(Ok));
            }
            names => self.reduce_rows(frame, tally, (0..frame.rows()).map(|row| names.raw(row))),
        }
        if matches!(frame.names, Names::Ids { .. }) {
            // Winners that share a name meet in the window, where the one published first stays among equals.
            let names = &self.names;
            self.order.sort_unstable_by_key(|&number| names[number as usize].row);
            let spelling = frame.names.spelling();
            for &number in &self.order {
                let winner = &names[number as usize];
                if spelling.name(&winner.name, &mut self.name) == Err(Reason::ClassNameMissing) {
                    tally.add(Reason::ClassNameMissing, u32::try_from(winner.rows).unwrap_or(u32::MAX));
                }
            }
        }
    }

    fn forget(&mut self) {
        self.names.clear();
        self.counts.clear();
        self.bytes = 0;
        self.table.clear();
        self.table.resize(SMALLEST_TABLE, 0);
        self.hinted.clear();
    }

    fn reduce_rows<'a>(
        &mut self,
        frame: &Frame<'_>,
        tally: &mut Tally,
        names: impl Iterator<Item = Result<&'a [u8], Reason>>,
    ) {
        for (row, name) in names.enumerate() {
            self.push(row, frame.confidences.get(row), name, NO_HINT, tally);
        }
    }

    /// Observes a row if it can be used, and counts it otherwise; `hint` is most likely equal just for equal names.
    #[inline]
    pub(crate) fn push(
        &mut self,
        row: usize,
        confidence: Result<f64, Reason>,
        name: Result<&[u8], Reason>,
        hint: usize,
        tally: &mut Tally,
    ) {
        let (confidence, name) = match (confidence.and_then(finite), name) {
            (Ok(confidence), Ok(name)) => (confidence, name),
            (Ok(confidence), Err(Reason::ClassNameMissing)) => {
                tally.add(Reason::ClassNameMissing, 1);
                (confidence, &[][..])
            }
            (Ok(_), Err(reason)) | (Err(reason), _) => return tally.add(reason, 1),
        };
        if !is_probability(confidence) {
            tally.add(Reason::ConfidenceOutOfRange, 1);
        }
        if self.counting {
            self.observe_hinted::<true>(row, confidence, name, hint);
        } else {
            self.observe_hinted::<false>(row, confidence, name, hint);
        }
    }

    // Inlined, all widths would share the registers of one function.
    #[inline(never)]
    fn reduce_arrays<const WIDTH: usize, const COUNTING: bool>(
        &mut self,
        confidences: &[[u8; 4]],
        names: &[[u8; WIDTH]],
        hints: &[[u8; 8]],
        tally: &mut Tally,
    ) {
        if !hints.is_empty() {
            self.expect_hints();
        }
        for (row, (&confidence, name)) in confidences.iter().zip(names).enumerate() {
            // One comparison tells a probability, but for -0.0.
            let is_usual = u32::from_ne_bytes(confidence) <= 1.0_f32.to_bits();
            let confidence = f64::from(f32::from_ne_bytes(confidence));
            if !is_usual && !takes(confidence, tally) {
                continue;
            }
            #[allow(clippy::cast_possible_truncation, reason = "a wrong hint only costs time")]
            let hint = hints.get(row).map_or(NO_HINT, |&hint| u64::from_ne_bytes(hint) as usize);
            self.observe_hinted::<COUNTING>(row, confidence, name, hint);
        }
    }

    /// Makes room to remember which name came with which hint.
    pub(crate) fn expect_hints(&mut self) {
        self.hinted.resize(MOST_HINTED, 0);
    }

    /// Observes a row whose name most likely is the one that came with the same hint before: comparing is less work than hashing.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call takes a quarter of a row's time")]
    fn observe_hinted<const COUNTING: bool>(&mut self, row: usize, confidence: f64, name: &[u8], hint: usize) {
        let hinted = self.hinted.get(hint).and_then(|number| number.checked_sub(1));
        if let Some(number) = hinted
            && equal(&self.names[number as usize].name, name)
        {
            return self.count::<COUNTING>(number, row, confidence);
        }
        let number = self.observe::<COUNTING>(row, confidence, name);
        if let Some(hinted) = self.hinted.get_mut(hint) {
            *hinted = number + 1;
        }
    }

    /// Observes a row; returns the number of its name.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call takes a quarter of a row's time")]
    fn observe<const COUNTING: bool>(&mut self, row: usize, confidence: f64, name: &[u8]) -> u32 {
        let hash = self.hasher.hash(name);
        let mut at = self.home(hash);
        while let Some(number) = self.table[at].checked_sub(1) {
            if equal(&self.names[number as usize].name, name) {
                self.count::<COUNTING>(number, row, confidence);
                return number;
            }
            at = (at + 1) & (self.table.len() - 1);
        }
        let number = self.add(at, hash, row, confidence, name);
        if COUNTING {
            self.counts.push(FrameCounts::new());
            self.counts[number as usize].add(confidence);
        }
        number
    }

    /// Counts a row for the name of this number.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call takes a quarter of a row's time")]
    fn count<const COUNTING: bool>(&mut self, number: u32, row: usize, confidence: f64) {
        let winner = &mut self.names[number as usize];
        if winner.frame != self.frame {
            self.order.push(number);
            winner.begin(self.frame, row, confidence);
            if COUNTING {
                let counts = &mut self.counts[number as usize];
                *counts = FrameCounts::new();
                counts.add(confidence);
            }
            return;
        }
        if COUNTING {
            self.counts[number as usize].add(confidence);
        }
        winner.rows += 1;
        // Whether a row is the best so far is a toss that no processor foresees, early in a frame.
        let better = confidence > winner.confidence;
        winner.confidence = select_unpredictable(better, confidence, winner.confidence);
        winner.row = select_unpredictable(better, row, winner.row);
    }

    /// Adds a name that the empty place `at` of the table is for.
    #[cold]
    fn add(&mut self, at: usize, hash: u64, row: usize, confidence: f64, name: &[u8]) -> u32 {
        let mut winner =
            Winner { row, first: row, rows: 1, confidence, class: Memo::default(), frame: 0, hash, name: name.into() };
        winner.begin(self.frame, row, confidence);
        self.bytes += name.len();
        self.names.push(winner);
        let number = numbered(self.names.len());
        self.order.push(number - 1);
        self.table[at] = number;
        if self.names.len() * 2 > self.table.len() {
            self.grow();
        }
        number - 1
    }

    fn home(&self, hash: u64) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "only the low bits are kept")]
        let low = hash as usize;
        low & (self.table.len() - 1)
    }

    fn grow(&mut self) {
        let larger = self.table.len() * 4;
        self.table.clear();
        self.table.resize(larger, 0);
        for number in 0..self.names.len() {
            let mut at = self.home(self.names[number].hash);
            while self.table[at] != 0 {
                at = (at + 1) & (larger - 1);
            }
            self.table[at] = numbered(number + 1);
        }
    }
}

impl<C> Winner<C> {
    /// Begins with the first usable row of a frame.
    #[inline]
    fn begin(&mut self, frame: u64, row: usize, confidence: f64) {
        (self.frame, self.row, self.first, self.rows, self.confidence) = (frame, row, row, 1, confidence);
    }
}

/// A count of winners as it stands in the table.
fn numbered(winners: usize) -> u32 {
    // A frame of 2^32 classes would need more than 16 GiB for its names; the excess would share the last winner's place.
    u32::try_from(winners).unwrap_or(u32::MAX)
}

/// Whether a row with an unusual confidence is taken; counts what is wrong with it.
#[cold]
fn takes(confidence: f64, tally: &mut Tally) -> bool {
    match finite(confidence) {
        Ok(confidence) if is_probability(confidence) => true,
        Ok(_) => {
            tally.add(Reason::ConfidenceOutOfRange, 1);
            true
        }
        Err(reason) => {
            tally.add(reason, 1);
            false
        }
    }
}

fn finite(confidence: f64) -> Result<f64, Reason> {
    if confidence.is_finite() {
        Ok(confidence)
    } else if confidence.is_nan() {
        Err(Reason::ConfidenceNan)
    } else {
        Err(Reason::ConfidenceInfinite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::Column;
    use crate::label::Encoding;

    fn native(names: &[&str], width: usize) -> Vec<u8> {
        let row = |name: &&str| {
            let mut row: Vec<u8> = name.chars().flat_map(|c| u32::from(c).to_ne_bytes()).collect();
            row.resize(4 * width, 0);
            row
        };
        names.iter().flat_map(row).collect()
    }

    /// First row, best row, rows and confidence of each winner.
    fn winners(reduction: &mut Reduction<(), ()>) -> Vec<(usize, usize, usize, f64)> {
        let all = 0..reduction.winners();
        let winner = |number| {
            let (winner, _) = reduction.winner(number);
            (winner.first, winner.row, winner.rows, winner.confidence)
        };
        all.map(winner).collect()
    }

    #[test]
    fn a_frame_is_reduced_to_the_first_best_row_of_each_class() {
        let names = native(&["a", "b", "a", "b", "a"], 3);
        let values: Vec<u8> = [0.5_f32, 0.25, 0.75, f32::NAN, 0.75].iter().flat_map(|v| v.to_ne_bytes()).collect();
        let column = Column::from_bytes(&values, 4);
        let confidences = Confidences::Numbers { column, number: Number::F32, swapped: false };
        let names = Names::Rows { column: Column::from_bytes(&names, 12), encoding: Encoding::Native };
        let frame = Frame::new(5, confidences, names).expect("columns of one length");
        let (mut reduction, mut tally) = (Reduction::<(), ()>::default(), Tally::default());
        reduction.reduce(&frame, false, &mut tally);
        let found = winners(&mut reduction);
        assert_eq!(found, [(0, 2, 3, 0.75), (1, 1, 1, 0.25)]);
    }

    #[test]
    fn a_frame_may_hold_more_classes_than_the_table() {
        let texts: Vec<String> = (0..5_000).map(|class| format!("class {}", class % 2_500)).collect();
        let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let names = native(&refs, 12);
        let names = Names::Rows { column: Column::from_bytes(&names, 48), encoding: Encoding::Native };
        let frame = Frame::new(refs.len(), Confidences::Missing, names).expect("columns of one length");
        let mut reduction = Reduction::<(), ()>::default();
        reduction.reduce(&frame, false, &mut Tally::default());
        let winners = winners(&mut reduction);
        assert_eq!(winners.len(), 2_500);
        assert!(winners.iter().enumerate().all(|(at, &(first, _, rows, _))| first == at && rows == 2));
    }
}
