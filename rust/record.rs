//! The bytes of a journal's segments.
//!
//! A segment is a header, twice, and records. A record is the segment's marker, its length and a CRC-32C, 32 bits each with the low byte
//! first, and then as many bytes as the length says: a kind, a version, and the rest in the encoding of postcard. The checksum covers marker and length, too.
//!
//! The marker is random and stands in the header. So a reader finds the next record after a damaged one by searching for the marker, and no
//! text of a frame, however hostile, is taken for a record.
//!
//! Each record can be read by itself: what is damaged costs nothing else.

use crate::statistics::{PartId, Statistics};
use serde::{Deserialize, Serialize};

/// What every segment begins with.
pub(crate) const MAGIC: &[u8; 8] = b"peakhold";
/// Version of the layout, the byte after [`MAGIC`].
pub(crate) const VERSION: u8 = 2;
/// Version of each kind of record.
const RECORD_VERSION: u8 = 1;
/// Bytes of a record before its kind.
const HEAD: usize = 12;
/// Bytes of one copy of the header: magic, version, marker, checksum.
const HEADER: usize = 8 + 1 + 4 + 4;

/// What tells the windows of a process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WindowId {
    /// Number of the aggregator within the process.
    pub aggregator: u64,
    /// Number of the window within the aggregator.
    pub window: u64,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// [`Opened`]: a window begins.
    Opened = 1,
    /// [`Frame`] and any number of [`Entry`]s: what a frame raised in a window.
    Maxima = 2,
    /// [`WindowId`] and microseconds since 1970: the window was closed then.
    Closed = 3,
    /// [`WindowId`]: the window is safe elsewhere.
    Committed = 4,
    /// [`WindowId`] of a batch, the frame's number there, and [`Registered`]: what a frame registers.
    Metadata = 5,
}

/// A window, and whatever its owner wants to know when it is recovered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened<'a> {
    pub(crate) id: WindowId,
    #[serde(borrow)]
    pub(crate) about: &'a [u8],
}

/// Where the entries of a record belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frame<'a> {
    pub(crate) id: WindowId,
    /// Ordinal of the model within the window.
    pub(crate) model: u64,
    pub(crate) model_id: &'a str,
}

/// A new maximum of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry<'a> {
    pub(crate) class_name: &'a str,
    /// Arrival ordinal of the class's first detection.
    pub(crate) first: u64,
    /// Arrival ordinal of this one.
    pub(crate) arrival: u64,
    pub(crate) confidence: f64,
    /// Inference id and prediction type; `None` for those of the entry before in this record.
    #[serde(borrow)]
    pub(crate) texts: Option<(&'a str, &'a str)>,
}

/// A field, its value, and the inferences that get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Name of the field.
    pub name: Vec<u8>,
    /// Value of the field.
    pub value: Vec<u8>,
    /// Ids of the inferences.
    pub ids: Vec<Vec<u8>>,
}

/// The header of a segment.
pub(crate) fn header(marker: u32) -> Vec<u8> {
    let mut copy = [MAGIC.as_slice(), &[VERSION], &marker.to_le_bytes()].concat();
    copy.extend(crc32c::crc32c(&copy).to_le_bytes());
    copy.repeat(2)
}

/// Version of what [`kept`] returns, after [`MAGIC`].
const STATISTICS_VERSION: u8 = 1;

/// The statistics of open windows as a file: magic and version, the encoding of postcard, and a CRC-32C of all that.
pub(crate) fn kept(windows: &[(WindowId, PartId, Statistics)]) -> Vec<u8> {
    let mut bytes = [MAGIC.as_slice(), &[STATISTICS_VERSION]].concat();
    push(&mut bytes, &windows);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Reads what [`kept`] has returned; nothing if it is damaged or of another version.
pub(crate) fn read_kept(bytes: &[u8]) -> Vec<(WindowId, PartId, Statistics)> {
    let whole = bytes.split_last_chunk().filter(|(content, sum)| crc32c::crc32c(content) == u32::from_le_bytes(**sum));
    let content = whole.and_then(|(content, _)| content.strip_prefix(MAGIC)?.strip_prefix(&[STATISTICS_VERSION]));
    content.and_then(|content| postcard::from_bytes(content).ok()).unwrap_or_default()
}

/// How bytes begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning<'a> {
    /// A segment of this version: its marker, its records, and whether both copies of the header are whole.
    Whole { marker: u32, records: &'a [u8], undamaged: bool },
    /// A segment whose header is damaged, or that ends within it.
    Damaged,
    /// A segment of a later version.
    Newer(u8),
    /// Something else.
    Foreign,
}

/// Reads the header of a segment.
pub(crate) fn beginning(bytes: &[u8]) -> Beginning<'_> {
    let copy = |at: usize| {
        let copy = bytes.get(at..at + HEADER)?;
        let (content, sum) = copy.split_last_chunk()?;
        let (head, marker) = content.split_last_chunk()?;
        let whole = head.strip_prefix(MAGIC) == Some(&[VERSION]) && crc32c::crc32c(content) == u32::from_le_bytes(*sum);
        whole.then(|| u32::from_le_bytes(*marker))
    };
    let (first, second) = (copy(0), copy(HEADER));
    if let Some(marker) = first.or(second) {
        let records = bytes.get(2 * HEADER..).unwrap_or_default();
        return Beginning::Whole { marker, records, undamaged: first == second };
    }
    match bytes.strip_prefix(MAGIC) {
        Some(&[version, ..]) if version > VERSION => Beginning::Newer(version),
        Some(&[VERSION, ..] | []) => Beginning::Damaged,
        None if MAGIC.starts_with(bytes) => Beginning::Damaged,
        _ => Beginning::Foreign,
    }
}

/// Begins a record at the end of `bytes`; returns where.
pub(crate) fn begin(bytes: &mut Vec<u8>, kind: Kind, part: &impl Serialize) -> usize {
    let start = bytes.len();
    bytes.resize(start + HEAD, 0);
    bytes.extend([kind as u8, RECORD_VERSION]);
    push(bytes, part);
    start
}

/// Appends a part to a record that was begun.
pub(crate) fn push(bytes: &mut Vec<u8>, part: &impl Serialize) {
    // Writing to memory cannot fail, and every type here has an encoding.
    *bytes = postcard::to_extend(part, std::mem::take(bytes)).unwrap_or_default();
}

/// Appends bytes with their number, as postcard does it one by one.
pub(crate) fn push_bytes(bytes: &mut Vec<u8>, part: &[u8]) {
    match u8::try_from(part.len()) {
        Ok(length @ ..128) => bytes.push(length), // postcard's own encoding of it, at less cost
        _ => push(bytes, &part.len()),
    }
    bytes.extend_from_slice(part);
}

/// Completes the record that begins at `start` and ends with `bytes`.
pub(crate) fn seal(bytes: &mut [u8], start: usize, marker: u32) {
    let Some((head, payload)) = bytes.get_mut(start..).and_then(|bytes| bytes.split_at_mut_checked(HEAD)) else {
        return;
    };
    // A record is begun anew long before its length needs more bits.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    head[..4].copy_from_slice(&marker.to_le_bytes());
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..].copy_from_slice(&checksum(marker, length, payload).to_le_bytes());
}

/// A whole record.
pub(crate) fn sealed(kind: Kind, part: &impl Serialize, marker: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin(&mut bytes, kind, part);
    seal(&mut bytes, start, marker);
    bytes
}

/// Bytes of the records that `bytes`, which are records of our own, begin with and that fit into `room`; at least one.
pub(crate) fn fitting(bytes: &[u8], room: usize) -> usize {
    let mut end = 0;
    while let Some(length) = bytes.get(end + 4..end + 8).and_then(|length| length.try_into().ok()) {
        let next = end + HEAD + u32::from_le_bytes(length) as usize;
        if end > 0 && next > room {
            break;
        }
        end = next;
    }
    end.min(bytes.len())
}

/// Kind and version of a record, and what follows them.
type Content<'a> = (u8, u8, &'a [u8]);

/// The whole records of a segment.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    marker: u32,
    /// Stretches of bytes so far that are not whole records.
    pub(crate) damaged: u64,
}

impl<'a> Records<'a> {
    pub(crate) const fn new(records: &'a [u8], marker: u32) -> Self {
        Self { rest: records, marker, damaged: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Content<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut skipped = false;
        while !self.rest.is_empty() {
            if let Some((record, rest)) = unseal(self.rest, self.marker) {
                self.rest = rest;
                self.damaged += u64::from(skipped);
                return Some(record);
            }
            skipped = true;
            let marker = self.marker.to_le_bytes();
            let next = self.rest[1..].windows(marker.len()).position(|bytes| bytes == marker);
            self.rest = next.map_or(&[], |at| &self.rest[1 + at..]);
        }
        self.damaged += u64::from(skipped);
        None
    }
}

/// The record that `bytes` begin with, and the bytes after it; `None` if they begin with none.
fn unseal(bytes: &[u8], marker: u32) -> Option<(Content<'_>, &[u8])> {
    let rest = bytes.strip_prefix(&marker.to_le_bytes())?;
    let (length, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length);
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let &[kind, version, ref content @ ..] = payload else { return None };
    (checksum(marker, length, payload) == u32::from_le_bytes(*sum)).then_some(((kind, version, content), rest))
}

fn checksum(marker: u32, length: u32, payload: &[u8]) -> u32 {
    let head = [marker.to_le_bytes(), length.to_le_bytes()].concat();
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: WindowId = WindowId { aggregator: 3, window: 7 };
    const MARKER: u32 = 0xa1b2_c3d4;

    #[test]
    fn a_damaged_record_costs_only_itself() {
        let record = sealed(Kind::Opened, &Opened { id: ID, about: b"anything" }, MARKER);
        let three = record.repeat(3);
        for index in record.len()..2 * record.len() {
            let mut bytes = three.clone();
            bytes[index] ^= 0x10;
            let mut records = Records::new(&bytes, MARKER);
            assert_eq!(records.by_ref().count(), 2, "byte {index}");
            assert_eq!(records.damaged, 1);
        }
        assert_eq!(fitting(&three, 2 * record.len()), 2 * record.len());
        assert_eq!(fitting(&three, 1), record.len());
    }

    #[test]
    fn zeros_and_records_of_another_segment_are_not_records() {
        let other = sealed(Kind::Committed, &ID, MARKER ^ 1);
        for bytes in [vec![0; 64], other] {
            let mut records = Records::new(&bytes, MARKER);
            assert_eq!((records.next(), records.damaged), (None, 1));
        }
    }

    #[test]
    fn one_whole_copy_of_the_header_is_enough() {
        let whole = header(MARKER);
        assert_eq!(beginning(&whole), Beginning::Whole { marker: MARKER, records: &[], undamaged: true });
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 0x10;
            assert_eq!(beginning(&bytes), Beginning::Whole { marker: MARKER, records: &[], undamaged: false });
        }
        assert_eq!(beginning(b"peakhold\x63whatever"), Beginning::Newer(0x63));
        assert_eq!(beginning(b"SQLite format 3"), Beginning::Foreign);
        assert_eq!(beginning(b""), Beginning::Damaged);
    }
}
