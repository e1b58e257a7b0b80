//! From the bytes of a journal, in whatever state they are, to the peaks that were written.
//!
//! The longest run of whole records from the start is taken, and nothing after it: whatever the bytes are, reading them ends
//! without a panic, and every peak found was written. Records that stand there twice or in another order make no difference,
//! because merging peaks makes none (see [`crate::snapshot`]) and names are looked up at the end if need be.

use crate::record::{Entry, Header, MAGIC, Named, VERSION, unseal};
use crate::snapshot::{ClassPeak, Place, Snapshot};
use std::collections::HashMap;

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// What was to be known about the window; `None` if not even that is whole.
    pub about: Option<Vec<u8>>,
    /// The peaks.
    pub snapshot: Snapshot,
    /// Whether the bytes go on after the last whole record.
    pub damaged: bool,
}

/// Bytes that are not a journal that this version can read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalError {
    /// They begin with something else.
    Foreign,
    /// They are of a later version.
    NewerVersion(u8),
}

impl std::fmt::Display for JournalError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign => formatter.write_str("the file is no journal of peakhold"),
            Self::NewerVersion(version) => {
                write!(formatter, "journal layout {version} is not known, only {VERSION}: upgrade peakhold")
            }
        }
    }
}

impl std::error::Error for JournalError {}

/// Reads a journal as far as it is whole.
///
/// # Errors
/// If the bytes are of another file or a later version.
pub fn recover(bytes: &[u8]) -> Result<Recovered, JournalError> {
    let cut = Recovered { damaged: true, ..Recovered::default() };
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return if MAGIC.starts_with(bytes) { Ok(cut) } else { Err(JournalError::Foreign) };
    };
    let (rest, header) = match rest.split_first() {
        None => return Ok(cut),
        Some((&VERSION, rest)) => match unseal(rest) {
            None => return Ok(cut),
            Some((header, rest)) => (rest, header),
        },
        Some((&version, _)) if version > VERSION => return Err(JournalError::NewerVersion(version)),
        Some(_) => return Err(JournalError::Foreign),
    };
    let Ok((Header { window, about }, [])) = postcard::take_from_bytes(header) else { return Ok(cut) };
    let mut peaks = Peaks { window, ..Peaks::default() };
    let mut rest = rest;
    let whole = loop {
        match unseal(rest) {
            None => break rest.is_empty(),
            Some((payload, after)) => {
                let Some(entries) = entries(payload) else { break false };
                for entry in entries {
                    peaks.add(entry);
                }
                rest = after;
            }
        }
    };
    let (snapshot, complete) = peaks.finish();
    Ok(Recovered { about: Some(about.to_vec()), snapshot, damaged: !(whole && complete) })
}

/// The entries of a record, if it holds entries and nothing else.
fn entries(payload: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let mut entry: Entry<'_>;
        (entry, rest) = postcard::take_from_bytes(rest).ok()?;
        entry.texts = Some(entry.texts.or_else(|| entries.last()?.texts)?);
        entries.push(entry);
    }
    (!entries.is_empty() && entries.iter().all(|entry| entry.confidence.is_finite())).then_some(entries)
}

/// Peaks of one window, gathered entry by entry.
#[derive(Default)]
struct Peaks<'a> {
    window: u64,
    names: HashMap<u32, Named<'a>>,
    /// Entries whose class has no name so far.
    nameless: Vec<Entry<'a>>,
    snapshot: Snapshot,
}

impl<'a> Peaks<'a> {
    fn add(&mut self, entry: Entry<'a>) {
        if let Some(named) = entry.named {
            self.names.insert(entry.class, named);
        }
        let Some(named) = self.names.get(&entry.class) else { return self.nameless.push(entry) };
        let place = |arrival| Place { window: self.window, model: named.model, arrival };
        let (inference_id, prediction_type) = entry.texts.unwrap_or_default();
        let peak = ClassPeak {
            first: place(entry.first),
            at: place(entry.arrival),
            confidence: entry.confidence,
            inference_id: inference_id.to_owned(),
            prediction_type: prediction_type.to_owned(),
        };
        self.snapshot.insert(named.model_id, named.class_name.to_owned(), peak);
    }

    /// The peaks, and whether every entry found its name.
    fn finish(mut self) -> (Snapshot, bool) {
        for entry in std::mem::take(&mut self.nameless) {
            self.add(entry);
        }
        (self.snapshot, self.nameless.is_empty())
    }
}
