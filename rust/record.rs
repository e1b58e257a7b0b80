//! The bytes of a window's journal.
//!
//! A journal is the magic bytes, a version, and records: length and CRC-32C, both 32 bits with the low byte first, then as many
//! bytes as the length says. The checksum covers the length too, so that a tail of zeros is no record. The first record
//! is the [`Header`]; every other one holds one or more [`Entry`]s, those that one frame added, in the encoding of postcard.
//!
//! A class is named when it is first written and then known by its number. An entry whose texts are those of the entry before it, as
//! they are for most frames, leaves them out.

use serde::{Deserialize, Serialize};

/// What every journal begins with.
pub(crate) const MAGIC: &[u8] = b"peakhold";
/// Version of the layout, the byte after [`MAGIC`].
pub(crate) const VERSION: u8 = 1;
/// Bytes of a record before its payload.
const HEAD: usize = 8;

/// What the peaks of a journal belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header<'a> {
    /// Sequence number of the window.
    pub(crate) window: u64,
    /// Whatever the owner of the window wants to know when it is recovered.
    #[serde(borrow)]
    pub(crate) about: &'a [u8],
}

/// A class, introduced by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named<'a> {
    /// Ordinal of its model within the window.
    pub(crate) model: u64,
    pub(crate) model_id: &'a str,
    pub(crate) class_name: &'a str,
}

/// A record high of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry<'a> {
    /// Number of the class within the window.
    pub(crate) class: u32,
    /// Its name, unless an earlier record has it.
    #[serde(borrow)]
    pub(crate) named: Option<Named<'a>>,
    /// Arrival ordinal of the class's first detection.
    pub(crate) first: u64,
    /// Arrival ordinal of this one.
    pub(crate) arrival: u64,
    pub(crate) confidence: f64,
    /// Inference id and prediction type; `None` for those of the entry before in this record.
    #[serde(borrow)]
    pub(crate) texts: Option<(&'a str, &'a str)>,
}

/// Begins a record in `bytes`, which are emptied.
pub(crate) fn begin(bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.resize(HEAD, 0);
}

/// Appends a part to a record that was begun.
pub(crate) fn push(bytes: &mut Vec<u8>, part: &impl Serialize) {
    // Writing to memory cannot fail, and every type here has an encoding.
    *bytes = postcard::to_extend(part, std::mem::take(bytes)).unwrap_or_default();
}

/// Completes a record that was begun; false if it is too long to be one.
pub(crate) fn seal(bytes: &mut [u8]) -> bool {
    let Some((head, payload)) = bytes.split_at_mut_checked(HEAD) else { return false };
    let Ok(length) = u32::try_from(payload.len()) else { return false };
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&checksum(length, payload).to_le_bytes());
    true
}

/// The payload of the record that `bytes` begin with, and the bytes after it; `None` if they begin with none.
pub(crate) fn unseal(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length);
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (checksum(length, payload) == u32::from_le_bytes(*sum)).then_some((payload, rest))
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_what_follows_is_left() {
        let mut bytes = Vec::new();
        begin(&mut bytes);
        push(&mut bytes, &Header { window: 7, about: b"anything" });
        assert!(seal(&mut bytes));
        bytes.extend(b"more");
        let (payload, rest) = unseal(&bytes).expect("just sealed");
        assert_eq!(postcard::from_bytes(payload), Ok(Header { window: 7, about: b"anything" }));
        assert_eq!(rest, b"more");
    }

    #[test]
    fn zeros_are_no_record() {
        for length in 0..64 {
            assert_eq!(unseal(&vec![0; length]), None);
        }
    }
}
