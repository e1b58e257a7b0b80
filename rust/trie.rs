//! A map from byte strings to values that grows without a lock, keeps what it holds, and can be closed once.
//!
//! Models and classes of a window are found here. The map is a trie over the digits of a hash: each branch has 32
//! places, and a place is empty, holds one leaf, or leads to a further branch. Nothing is ever moved or removed before the whole
//! map is dropped, so a reader needs no protection, and growing needs no rehash: when two keys want one place, an
//! exchange puts a branch with the old leaf there and the search goes on below.
//!
//! A drain closes the map place by place: from then on nothing can be added at that place, and an observer that
//! wanted to is told to go to the current window. What was added before is visited by the drain.
//!
//! Keys may be hostile (recognised text as class name). Hashes are seeded per process, and after twelve digits a
//! key is hashed anew with another seed, so that even equal hashes come apart.
//!
//! # Orderings
//! * installing a leaf or a branch (release) pairs with the loads of its place (acquire), and with exchanges of it that fail
//!   (acquire): what it points to is initialised.
//! * closing a place (acquire) pairs with the same: the drain sees the leaf that it visits.
//! * closing a place (release) pairs with the same loads as installing does: an observer that is turned away finds, when it pins
//!   again, the window that the drain had put in place before. Were it not so, it would only be turned away once more.
#![allow(unsafe_code)]

use crate::mutants::{mutant, ordering};
use crate::seed::Quality;
use crate::sync::{AtomicPtr, Ordering};
use std::hash::{BuildHasher, Hasher};
use std::ptr;
use std::sync::LazyLock;

/// A model checker gets no more places than it can follow.
const DIGIT_BITS: u32 = if cfg!(peakhold_loom) { 1 } else { 5 };
const FANOUT: usize = 1 << DIGIT_BITS;
const DIGITS_PER_HASH: u32 = 12;

const CLOSED: usize = 1;
const BRANCH: usize = 2;
const TAGS: usize = CLOSED | BRANCH;

static SEED: LazyLock<Quality> = LazyLock::new(Quality::default);

/// The hash of a key, as [`Trie`] wants it.
pub(crate) fn hash(key: &[u8]) -> u64 {
    rehash(key, 0)
}

fn rehash(key: &[u8], round: u32) -> u64 {
    let mut hasher = SEED.build_hasher();
    hasher.write_u32(round);
    hasher.write(key);
    hasher.finish()
}

/// The map was closed at the place where the key belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

struct Leaf<T> {
    hash: u64,
    key: Box<[u8]>,
    value: T,
}

#[repr(align(8))]
struct Branch {
    places: [AtomicPtr<u8>; FANOUT],
}

impl Branch {
    fn new() -> Self {
        Self { places: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }
}

/// What a place holds, read once.
enum Place<T> {
    Empty,
    Leaf(*mut Leaf<T>),
    Branch(*mut Branch),
}

fn untagged<T>(word: *mut u8) -> Place<T> {
    let bare = word.map_addr(|address| address & !TAGS);
    if bare.is_null() {
        Place::Empty
    } else if word.addr() & BRANCH == 0 {
        Place::Leaf(bare.cast())
    } else {
        Place::Branch(bare.cast())
    }
}

fn is_closed(word: *mut u8) -> bool {
    word.addr() & CLOSED != 0
}

/// The digit of a key at a depth; `first` is its hash of round zero.
fn digit(key: &[u8], first: u64, depth: u32) -> usize {
    let round = depth / DIGITS_PER_HASH;
    let hash = if round == 0 { first } else { rehash(key, round) };
    let shifted = hash >> (depth % DIGITS_PER_HASH * DIGIT_BITS);
    #[allow(clippy::cast_possible_truncation, reason = "only the low digit is kept")]
    let digit = shifted as usize % FANOUT;
    digit
}

/// A lock-free map that only grows.
pub(crate) struct Trie<T> {
    root: Branch,
    /// The map owns its leaves.
    leaves: std::marker::PhantomData<Box<Leaf<T>>>,
}

impl<T> Trie<T> {
    pub(crate) fn new() -> Self {
        const { assert!(align_of::<Leaf<T>>() > TAGS && align_of::<Branch>() > TAGS, "no room for the tags") };
        Self { root: Branch::new(), leaves: std::marker::PhantomData }
    }

    /// The value of a key, if there is one.
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<&T> {
        let mut branch = &self.root;
        for depth in 0.. {
            let word = branch.places[digit(key, hash, depth)].load(ordering!(Acquire, "leaf_unacquired" => Relaxed));
            match untagged::<T>(word) {
                Place::Empty => return None,
                Place::Leaf(leaf) => {
                    // SAFETY: leaves live as long as `self`, and were initialised before they were installed.
                    let leaf = unsafe { &*leaf };
                    return (leaf.hash == hash && *leaf.key == *key).then_some(&leaf.value);
                }
                // SAFETY: likewise for branches.
                Place::Branch(below) => branch = unsafe { &*below },
            }
        }
        None
    }

    /// Adds a value unless the key has one; returns the key's value and whether it is the one given.
    pub(crate) fn insert(&self, hash: u64, key: &[u8], value: T) -> Result<(&T, bool), Closed> {
        let mine = Box::into_raw(Box::new(Leaf { hash, key: key.into(), value }));
        let found = self.install(hash, key, mine);
        let added = found.is_ok_and(|leaf| ptr::eq(leaf, mine));
        if !added && !mutant!("lost_leaf_kept") {
            // SAFETY: never installed, so nobody else has seen it.
            drop(unsafe { Box::from_raw(mine) });
        }
        // SAFETY: the leaf found is in the map, which outlives the borrow of `self`.
        found.map(|leaf| (unsafe { &(*leaf).value }, added))
    }

    /// Finds the key's leaf, or installs `mine`.
    fn install(&self, hash: u64, key: &[u8], mine: *mut Leaf<T>) -> Result<*mut Leaf<T>, Closed> {
        let mut branch = &self.root;
        let mut depth = 0;
        loop {
            let place = &branch.places[digit(key, hash, depth)];
            let acquire = ordering!(Acquire, "place_unacquired" => Relaxed);
            let mut word = place.load(acquire);
            branch = loop {
                let replacement: *mut u8 = match untagged::<T>(word) {
                    Place::Branch(below) => {
                        // SAFETY: branches live as long as `self`.
                        break unsafe { &*below };
                    }
                    Place::Leaf(other) => {
                        // SAFETY: leaves live as long as `self`.
                        let held = unsafe { &*other };
                        if held.hash == hash && *held.key == *key {
                            return Ok(other);
                        }
                        let below = Branch::new();
                        let at = digit(&held.key, held.hash, depth + 1);
                        below.places[at].store(other.cast(), Ordering::Relaxed);
                        let below = Box::into_raw(Box::new(below)).cast::<u8>();
                        below.map_addr(|address| address | BRANCH)
                    }
                    Place::Empty => mine.cast(),
                };
                let outcome = if is_closed(word) && !mutant!("closed_place_filled") {
                    Err(word)
                } else {
                    let success = ordering!(Release, "place_unreleased" => Relaxed);
                    place.compare_exchange(word, replacement, success, acquire)
                };
                match (outcome, untagged::<T>(replacement)) {
                    (Ok(_), Place::Leaf(mine)) => return Ok(mine),
                    (Ok(_), _) => word = replacement,
                    (Err(actual), unused) => {
                        if let Place::Branch(unused) = unused
                            && !mutant!("lost_branch_kept")
                        {
                            // SAFETY: never installed; dropping a branch does not touch the leaf it names.
                            drop(unsafe { Box::from_raw(unused) });
                        }
                        if is_closed(actual) && !matches!(untagged::<T>(actual), Place::Branch(_)) {
                            return Err(Closed);
                        }
                        word = actual;
                    }
                }
            };
            depth += 1;
        }
    }

    /// Closes every place and calls `visit` with every value that was added before.
    pub(crate) fn close(&self, visit: impl FnMut(&[u8], &T)) {
        let close = |place: &AtomicPtr<u8>| {
            let mut word = place.load(Ordering::Relaxed);
            loop {
                let closed = word.map_addr(|address| address | CLOSED);
                match place.compare_exchange(
                    word,
                    closed,
                    ordering!(AcqRel, "closing_unacquired" => Release),
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return word,
                    Err(actual) => word = actual,
                }
            }
        };
        self.walk(close, visit);
    }

    /// Calls `visit` with every value; one that is added meanwhile may be missed.
    pub(crate) fn visit(&self, visit: impl FnMut(&[u8], &T)) {
        self.walk(|place| place.load(Ordering::Acquire), visit);
    }

    fn walk(&self, read: impl Fn(&AtomicPtr<u8>) -> *mut u8, mut visit: impl FnMut(&[u8], &T)) {
        let mut branches = vec![&self.root];
        while let Some(branch) = branches.pop() {
            for place in &branch.places {
                match untagged::<T>(read(place)) {
                    Place::Empty => {}
                    Place::Leaf(leaf) => {
                        // SAFETY: leaves live as long as `self`; reading the place acquired it.
                        let leaf = unsafe { &*leaf };
                        visit(&leaf.key, &leaf.value);
                    }
                    // SAFETY: likewise for branches.
                    Place::Branch(below) => branches.push(unsafe { &*below }),
                }
            }
        }
    }
}

impl<T> Drop for Trie<T> {
    fn drop(&mut self) {
        let mut below = Vec::new();
        let mut free = |branch: &Branch| {
            for place in &branch.places {
                match untagged::<T>(place.load(Ordering::Relaxed)) {
                    Place::Empty => {}
                    // SAFETY: `&mut self`: the leaf was made from a box, and only one place names it.
                    Place::Leaf(leaf) => drop(unsafe { Box::from_raw(leaf) }),
                    Place::Branch(branch) => below.push(branch),
                }
            }
            below.pop()
        };
        let mut next = free(&self.root);
        while let Some(branch) = next {
            // SAFETY: as for leaves.
            let branch = unsafe { Box::from_raw(branch) };
            next = free(&branch);
        }
    }
}

// SAFETY: the map hands out `&T` on any thread and drops `T` on any thread.
unsafe impl<T: Send + Sync> Send for Trie<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Trie<T> {}

#[cfg(all(test, not(peakhold_loom)))]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::atomic::AtomicUsize;

    fn insert(trie: &Trie<u64>, key: u64) -> Result<(&u64, bool), Closed> {
        let key_bytes = key.to_ne_bytes();
        trie.insert(hash(&key_bytes), &key_bytes, key)
    }

    #[test]
    fn values_are_found_where_they_were_added() {
        let trie = Trie::new();
        for key in 0..5_000 {
            assert_eq!(insert(&trie, key), Ok((&key, true)));
        }
        for key in 0..5_000_u64 {
            assert_eq!(insert(&trie, key), Ok((&key, false)));
            assert_eq!(trie.get(hash(&key.to_ne_bytes()), &key.to_ne_bytes()), Some(&key));
        }
        assert_eq!(trie.get(hash(b"absent"), b"absent"), None);
    }

    #[test]
    fn equal_hashes_come_apart() {
        let trie = Trie::new();
        for key in 0..100_u64 {
            let (value, added) = trie.insert(7, &key.to_ne_bytes(), key).expect("open");
            assert_eq!((*value, added), (key, true));
        }
        for key in 0..100_u64 {
            assert_eq!(trie.get(7, &key.to_ne_bytes()), Some(&key));
        }
    }

    #[test]
    fn closing_visits_everything_and_lets_nothing_in() {
        let trie = Trie::new();
        for key in 0..1_000 {
            insert(&trie, key).expect("open");
        }
        let mut seen = HashMap::new();
        trie.close(|key, value| {
            seen.insert(key.to_vec(), *value);
        });
        assert_eq!(seen.len(), 1_000);
        assert!((1_000..2_000).all(|key| insert(&trie, key) == Err(Closed)));
    }

    #[test]
    fn what_is_not_refused_is_visited() {
        let rounds = if cfg!(miri) { 2 } else { 50 };
        for _ in 0..rounds {
            let trie = Trie::new();
            let accepted = AtomicUsize::new(0);
            let mut visited = 0;
            std::thread::scope(|scope| {
                for thread in 0..3_u64 {
                    let (trie, accepted) = (&trie, &accepted);
                    scope.spawn(move || {
                        for key in 0..500 {
                            if matches!(insert(trie, key * (thread + 1)), Ok((_, true))) {
                                accepted.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
                std::thread::yield_now();
                trie.close(|_, _| visited += 1);
            });
            assert_eq!(visited, accepted.load(Ordering::Relaxed));
        }
    }
}
