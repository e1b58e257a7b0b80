//! A window lives as long as somebody looks at it.

use super::{Payload, check};
use crate::rotation::Current;
use crate::trie::Trie;
use loom::thread::spawn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// A value that is replaced, checked for leaks.
fn with_current(model: impl Fn(&Arc<Current<Payload>>, &Arc<AtomicUsize>)) {
    let live = Arc::new(AtomicUsize::new(0));
    let current = Arc::new(Current::new(Payload::new(0, &live)));
    model(&current, &live);
    assert_eq!(live.load(SeqCst), 1, "a replaced value was never dropped");
    drop(current);
    assert_eq!(live.load(SeqCst), 0, "a value was never dropped, or twice");
}

#[test]
fn a_pinned_value_outlives_its_replacement() {
    check(["debt_unacquired", "debt_unreleased", "pin_unreleased", "window_unacquired"], || {
        with_current(|current, live| {
            let others = [(), ()].map(|()| {
                let current = current.clone();
                spawn(move || {
                    let pin = current.pin();
                    assert!(pin.read() <= 1);
                    assert!(pin.read() <= 1);
                })
            });
            let replaced = current.replace(Payload::new(1, live));
            assert_eq!(replaced.read(), 0);
            drop(replaced);
            others.into_iter().for_each(|other| other.join().expect("no panic"));
        });
    });
}

#[test]
fn two_drains_replace_different_values() {
    check(["drain_uncounted", "pin_unacquired", "window_unreleased"], || {
        with_current(|current, live| {
            let observer = spawn({
                let current = current.clone();
                move || assert!(current.pin().read() <= 2)
            });
            let drain = spawn({
                let (current, live) = (current.clone(), live.clone());
                move || current.replace(Payload::new(1, &live)).read()
            });
            let mine = current.replace(Payload::new(2, live)).read();
            let others = drain.join().expect("no panic");
            observer.join().expect("no panic");
            assert!(matches!((mine, others), (0, 2) | (1, 0)));
        });
    });
}

/// Registers a model as observers do: one that finds its place closed goes to the window that is current then.
fn register(current: &Current<Trie<Payload>>, model: u8, live: &Arc<AtomicUsize>) {
    while current.pin().insert(model.into(), &[model], Payload::new(model.into(), live)).is_err() {}
}

#[test]
fn three_models_register_while_the_window_turns() {
    check(["closing_unacquired", "closed_place_filled", "lost_leaf_kept"], || {
        let live = Arc::new(AtomicUsize::new(0));
        let current = Arc::new(Current::new(Trie::new()));
        let other = spawn({
            let (current, live) = (current.clone(), live.clone());
            move || register(&current, 0b10, &live)
        });
        let drain = spawn({
            let (current, live) = (current.clone(), live.clone());
            move || {
                register(&current, 0b01, &live);
                let mut visited = Vec::new();
                current.replace(Trie::new()).close(|_, model| visited.push(model.read()));
                visited
            }
        });
        // Shares a place with the other one until that becomes a branch.
        register(&current, 0b00, &live);
        let mut visited = drain.join().expect("no panic");
        assert!(visited.contains(&0b01));
        other.join().expect("no panic");
        current.replace(Trie::new()).close(|_, model| visited.push(model.read()));
        visited.sort_unstable();
        assert_eq!(visited, [0b00, 0b01, 0b10]);
        assert_eq!(live.load(SeqCst), 0, "a model was never dropped, or twice");
    });
}
