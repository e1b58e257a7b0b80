//! Metadata that waits in memory to be sent: written to the journal before it is accepted.
//!
//! What frames register is collected in memory until it becomes a request. So that it outlives its process like an open window does, each frame's is
//! one record of the journal ([`crate::record`]). Frames are put together to batches of about one request. A batch is to the journal
//! what a window is: it has an id, from which that of its request follows, and is over with once it is committed elsewhere. Which frames belong to a batch is decided here,
//! when they are written, so that the process that recovers a batch makes the same request of it.

use crate::journal::{Journal, WindowJournal, next_number};
use crate::record::{self, Kind, WindowId};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

/// Ids of a batch, but for a single frame that has more.
const MOST_IDS: usize = 1_000;

/// Bytes of a batch, but for a single frame that has more.
const MOST_BYTES: usize = 256 << 10;

/// Bytes of an id: a UUID's, and its length.
const USUAL: usize = 37;

/// The bytes of what one frame registers: a field, its value and the inferences that get it.
///
/// Texts are UTF-8, or what Python makes of texts that have no UTF-8.
#[derive(Debug)]
pub struct Registration {
    field: Vec<u8>,
    ids: Vec<u8>,
    count: usize,
}

impl Registration {
    /// Begins without an id; `ids` are about to come.
    #[must_use]
    pub fn new(name: &[u8], value: &[u8], ids: usize) -> Self {
        let mut field = Vec::with_capacity(name.len() + value.len() + 2);
        record::push_bytes(&mut field, name);
        record::push_bytes(&mut field, value);
        Self { field, ids: Vec::with_capacity(ids * USUAL), count: 0 }
    }

    /// Adds an id.
    pub fn push(&mut self, id: &[u8]) {
        record::push_bytes(&mut self.ids, id);
        self.count += 1;
    }

    const fn size(&self) -> usize {
        self.field.len() + self.ids.len()
    }
}

/// Frames whose metadata becomes one request.
#[derive(Debug)]
pub struct MetadataBatch {
    journal: Arc<WindowJournal>,
    frames: OnceLock<u64>,
}

impl MetadataBatch {
    /// Its place in the journal.
    #[must_use]
    pub const fn journal(&self) -> &Arc<WindowJournal> {
        &self.journal
    }

    /// How many frames it has; `None` as long as more may come.
    #[must_use]
    pub fn frames(&self) -> Option<u64> {
        self.frames.get().copied()
    }
}

/// Where the metadata of a destination is written down.
#[derive(Debug)]
pub struct MetadataJournal {
    journal: Arc<Journal>,
    number: u64,
    about: Arc<[u8]>,
    open: Mutex<Open>,
}

/// The batch that frames join.
#[derive(Debug)]
struct Open {
    batch: Arc<MetadataBatch>,
    number: u64,
    frames: u64,
    ids: usize,
    bytes: usize,
    record: Vec<u8>,
}

impl MetadataJournal {
    /// Touches no file yet; `about` stands there with each batch, for the process that recovers it.
    #[must_use]
    pub fn new(journal: Arc<Journal>, about: &[u8]) -> Self {
        let (number, about) = (next_number(), Arc::from(about));
        let batch = batch(&journal, number, 0, &about);
        let open = Open { batch, number: 0, frames: 0, ids: 0, bytes: 0, record: Vec::new() };
        Self { journal, number, about, open: Mutex::new(open) }
    }

    /// Whether [`append`](Self::append) may take long.
    #[must_use]
    pub fn may_block(&self) -> bool {
        self.journal.may_block() || matches!(self.open.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Writes down what a frame registers; returns its batch, and its number there.
    ///
    /// What cannot be written is kept by the [error](WindowJournal::error) of the batch.
    pub fn append(&self, registration: &Registration) -> (Arc<MetadataBatch>, u64) {
        let mut open = self.open();
        let size = registration.size();
        if open.ids + registration.count > MOST_IDS || open.bytes + size > MOST_BYTES {
            self.end(&mut open);
        }
        let number = open.frames;
        open.frames += 1;
        open.ids += registration.count;
        open.bytes += size;
        let Open { batch, record, .. } = &mut *open;
        if batch.journal.error().is_none() {
            record.clear();
            record::begin(record, Kind::Metadata, &(batch.journal.id(), number));
            record.extend_from_slice(&registration.field);
            record::push(record, &registration.count);
            record.extend_from_slice(&registration.ids);
            record::seal(record, 0, self.journal.marker());
            batch.journal.append(record);
        }
        (open.batch.clone(), number)
    }

    /// Ends the batch that frames join, if it has any.
    pub fn cut(&self) {
        self.end(&mut self.open());
    }

    fn end(&self, open: &mut Open) {
        if open.frames > 0 {
            // Nobody else ends it.
            let _ = open.batch.frames.set(open.frames);
            open.number += 1;
            open.batch = batch(&self.journal, self.number, open.number, &self.about);
            (open.frames, open.ids, open.bytes) = (0, 0, 0);
            open.record.shrink_to(MOST_BYTES);
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // A panic leaves a batch that has at worst a frame less than it says.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn batch(journal: &Arc<Journal>, aggregator: u64, window: u64, about: &Arc<[u8]>) -> Arc<MetadataBatch> {
    let journal = WindowJournal::new(journal.clone(), WindowId { aggregator, window }, about.clone());
    Arc::new(MetadataBatch { journal: Arc::new(journal), frames: OnceLock::new() })
}
