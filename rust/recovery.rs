//! From the bytes of a process's segments, in whatever state they are, to the windows that were open.
//!
//! Whatever the bytes are, reading them ends without a panic, every peak found was written, and what is damaged costs its own
//! record only. Records that stand there twice or in another order make no difference, because merging peaks makes none (see [`crate::snapshot`]).

use crate::record::{
    Beginning, Entry, Frame, Kind, Opened, Records, Registered, VERSION, WindowId, beginning, read_kept,
};
use crate::snapshot::{ClassPeak, Place, Snapshot};
use std::collections::{BTreeMap, HashSet};

/// A window that was not committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveredWindow {
    /// What was to be known about the window; `None` if that is damaged.
    pub about: Option<Vec<u8>>,
    /// When it was closed, in microseconds since 1970; `None` if it was open.
    pub closed_at: Option<i64>,
    /// The peaks.
    pub snapshot: Snapshot,
    /// What frames registered, by their numbers, if it is a batch of metadata.
    pub metadata: BTreeMap<u64, Registered>,
}

/// What the segments of a process hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Windows that were not committed.
    pub windows: BTreeMap<WindowId, RecoveredWindow>,
    /// Stretches of bytes that are not whole records.
    pub damaged: u64,
    /// Records of kinds that this version does not know.
    pub unknown: u64,
    committed: HashSet<WindowId>,
    /// The windows that are looked for, if not all are.
    wanted: Option<HashSet<WindowId>>,
}

/// Bytes that are not a segment that this version can read.
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
            Self::Foreign => formatter.write_str("the file is not a journal of peakhold"),
            Self::NewerVersion(version) => {
                write!(formatter, "journal layout {version} is not known, only {VERSION}: upgrade peakhold")
            }
        }
    }
}

impl std::error::Error for JournalError {}

/// Reads the segments of a process, in any order.
///
/// # Errors
/// If one is another file, or of a later version.
pub fn recover<'a>(segments: impl IntoIterator<Item = &'a [u8]>) -> Result<Recovered, JournalError> {
    let mut recovered = Recovered::default();
    for bytes in segments {
        recovered.add(bytes)?;
    }
    Ok(recovered)
}

impl Recovered {
    /// Nothing so far, and never anything of other windows.
    pub(crate) fn of(windows: HashSet<WindowId>) -> Self {
        Self { wanted: Some(windows), ..Self::default() }
    }

    /// Adds what a segment holds.
    ///
    /// # Errors
    /// If it is another file, or of a later version.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        match beginning(bytes) {
            Beginning::Foreign => Err(JournalError::Foreign),
            Beginning::Newer(version) => Err(JournalError::NewerVersion(version)),
            Beginning::Damaged => {
                // Nothing was lost with one that its process was killed making.
                self.damaged += u64::from(!bytes.is_empty());
                Ok(())
            }
            Beginning::Whole { marker, records, undamaged } => {
                let mut records = Records::new(records, marker);
                for (kind, version, content) in records.by_ref() {
                    if self.take(kind, version, content).is_none() {
                        self.unknown += 1;
                    }
                }
                self.damaged += records.damaged + u64::from(!undamaged);
                Ok(())
            }
        }
    }

    /// Adds the statistics that were kept of open windows, as far as these are known: their last observations may be missing.
    pub fn add_statistics(&mut self, bytes: &[u8]) {
        for (id, part, statistics) in read_kept(bytes) {
            if let Some(window) = self.windows.get_mut(&id) {
                window.snapshot.insert_part(part, statistics);
            }
        }
    }

    /// Takes a record in; `None` if it is not known.
    fn take(&mut self, kind: u8, version: u8, content: &[u8]) -> Option<()> {
        if version != 1 {
            return None;
        }
        if kind == Kind::Opened as u8 {
            let Opened { id, about } = postcard::from_bytes(content).ok()?;
            if let Some(window) = self.window(id) {
                window.about = Some(about.to_vec());
            }
        } else if kind == Kind::Maxima as u8 {
            let (frame, rest) = postcard::take_from_bytes::<Frame<'_>>(content).ok()?;
            let entries = entries(rest)?;
            if let Some(window) = self.window(frame.id) {
                for entry in entries {
                    window.snapshot.insert(frame.model_id, entry.class_name.to_owned(), peak(frame, entry));
                }
            }
        } else if kind == Kind::Closed as u8 {
            let (id, at) = postcard::from_bytes(content).ok()?;
            if let Some(window) = self.window(id) {
                window.closed_at = Some(at);
            }
        } else if kind == Kind::Metadata as u8 {
            let (id, number, registered) = postcard::from_bytes(content).ok()?;
            if let Some(window) = self.window(id) {
                window.metadata.insert(number, registered);
            }
        } else if kind == Kind::Committed as u8 {
            let id = postcard::from_bytes(content).ok()?;
            self.windows.remove(&id);
            self.committed.insert(id);
        } else {
            return None;
        }
        Some(())
    }

    /// The window of an id, unless it was committed or is not looked for.
    fn window(&mut self, id: WindowId) -> Option<&mut RecoveredWindow> {
        let ignored = self.committed.contains(&id) || self.wanted.as_ref().is_some_and(|wanted| !wanted.contains(&id));
        (!ignored).then(|| self.windows.entry(id).or_default())
    }
}

fn peak(frame: Frame<'_>, entry: Entry<'_>) -> ClassPeak {
    let place = |arrival| Place { window: frame.id.window, model: frame.model, arrival };
    let (inference_id, prediction_type) = entry.texts.unwrap_or_default();
    ClassPeak {
        first: place(entry.first),
        at: place(entry.arrival),
        confidence: entry.confidence,
        inference_id: inference_id.to_owned(),
        prediction_type: prediction_type.to_owned(),
    }
}

/// The entries of a record, if it holds entries and nothing else.
fn entries(content: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let mut entry: Entry<'_>;
        (entry, rest) = postcard::take_from_bytes(rest).ok()?;
        entry.texts = Some(entry.texts.or_else(|| entries.last()?.texts)?);
        entries.push(entry);
    }
    (!entries.is_empty() && entries.iter().all(|entry| entry.confidence.is_finite())).then_some(entries)
}
