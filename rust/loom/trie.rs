//! Models and classes are added once, and visited or refused.

use super::{Payload, check};
use crate::trie::{Closed, Trie};
use loom::thread::spawn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Two hashes that share their first digit and differ in the second.
const NEAR: [u64; 2] = [0b00, 0b10];

/// A map of payloads, checked for leaks.
fn with_map(model: impl Fn(&Arc<Trie<Payload>>, &Arc<AtomicUsize>)) {
    let live = Arc::new(AtomicUsize::new(0));
    let map = Arc::new(Trie::new());
    model(&map, &live);
    drop(map);
    assert_eq!(live.load(SeqCst), 0, "a value was never dropped, or twice");
}

fn add(map: &Trie<Payload>, hash: u64, key: &[u8], live: &Arc<AtomicUsize>) -> Result<(u64, bool), Closed> {
    let value = key[0].into();
    map.insert(hash, key, Payload::new(value, live)).map(|(value, added)| (value.read(), added))
}

#[test]
fn a_key_first_seen_by_two_is_added_once() {
    check(["lost_leaf_kept", "place_unacquired"], || {
        with_map(|map, live| {
            let others = [(), ()].map(|()| {
                let (map, live) = (map.clone(), live.clone());
                spawn(move || add(&map, NEAR[0], b"a", &live))
            });
            let found = map.get(NEAR[0], b"a").map(Payload::read);
            assert!(found.is_none_or(|value| value == u64::from(b'a')));
            let added = others.map(|other| other.join().expect("no panic").expect("open"));
            assert_eq!(usize::from(added[0].1) + usize::from(added[1].1), 1);
            assert!(added.iter().all(|&(value, _)| value == u64::from(b'a')));
            assert_eq!(live.load(SeqCst), 1);
        });
    });
}

#[test]
fn keys_that_want_one_place_come_apart() {
    check(["place_unreleased", "lost_branch_kept"], || {
        with_map(|map, live| {
            let keys = [(NEAR[0], b"a"), (NEAR[1], b"b"), (NEAR[0], b"c")];
            add(map, keys[2].0, keys[2].1, live).expect("open");
            let others = [keys[0], keys[1]].map(|(hash, key)| {
                let (map, live) = (map.clone(), live.clone());
                spawn(move || add(&map, hash, key, &live))
            });
            for other in others {
                assert!(other.join().expect("no panic").is_ok_and(|(_, added)| added));
            }
            for (hash, key) in keys {
                assert_eq!(map.get(hash, key).map(Payload::read), Some(u64::from(key[0])));
            }
        });
    });
}

#[test]
fn what_is_not_refused_is_visited() {
    check(["closed_place_filled"], || {
        with_map(|map, live| {
            let others = [(NEAR[0], b"a"), (NEAR[1], b"b")].map(|(hash, key)| {
                let (map, live) = (map.clone(), live.clone());
                spawn(move || add(&map, hash, key, &live).is_ok_and(|(_, added)| added).then_some(key[0]))
            });
            let mut visited = Vec::new();
            map.close(|key, value| {
                assert_eq!(value.read(), u64::from(key[0]));
                visited.push(key[0]);
            });
            let mut added: Vec<_> = others.into_iter().filter_map(|other| other.join().expect("no panic")).collect();
            visited.sort_unstable();
            added.sort_unstable();
            assert_eq!(visited, added);
            assert_eq!(add(map, NEAR[1], b"d", live), Err(Closed));
        });
    });
}

#[test]
fn a_place_that_becomes_a_branch_is_closed_below() {
    check(["closing_unacquired"], || {
        with_map(|map, live| {
            add(map, NEAR[0], b"a", live).expect("open");
            let other = spawn({
                let (map, live) = (map.clone(), live.clone());
                move || add(&map, NEAR[1], b"b", &live).is_ok()
            });
            let mut visited = 0;
            map.close(|_, _| visited += 1);
            assert_eq!(visited, 1 + usize::from(other.join().expect("no panic")));
        });
    });
}
