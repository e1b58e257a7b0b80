//! Random operations on the core and on its plainest form: both answer alike, and wrong forms do not.

use crate::model::{Plain, PlainSnapshot, Rule, WRONG_RULES};
use crate::support::{Line, Row, line, observe};
use peakhold::{Aggregator, Snapshot, Tally};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// What can be done with windows. An [`Index`] means one of the snapshots taken so far.
#[derive(Clone, Debug)]
enum Operation {
    /// A frame of a model, and the width of its name rows.
    Observe(&'static str, Vec<Row>, usize),
    Drain,
    Merge(Index, Index),
    Recode(Index),
    Report(Index),
}

fn confidence() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => prop::sample::select(vec![0.0, -0.0, 0.25, 0.5, 0.9, 1.0]),
        3 => 0.0..1.0,
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -3.5, 1e300, 5e-324]),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let name = prop::sample::select(vec!["", "a", "b", "c", "person", "人", "🦀 crab", "a\0b"]);
    (name, confidence()).prop_map(|(name, confidence)| (name.to_owned(), confidence, String::new()))
}

fn operation() -> impl Strategy<Value = Operation> {
    let model = prop::sample::select(vec!["m/1", "m/2", "other/7"]);
    prop_oneof![
        6 => (model, prop::collection::vec(row(), 0..12), 6_usize..20)
            .prop_map(|(model, rows, width)| Operation::Observe(model, rows, width)),
        2 => Just(Operation::Drain),
        2 => any::<(Index, Index)>().prop_map(|(one, other)| Operation::Merge(one, other)),
        1 => any::<Index>().prop_map(Operation::Recode),
        2 => any::<Index>().prop_map(Operation::Report),
    ]
}

/// Operations whose rows each have an inference id of their own.
fn operations() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation(), 1..40).prop_map(|mut operations| {
        let rows = operations.iter_mut().filter_map(|operation| match operation {
            Operation::Observe(_, rows, _) => Some(rows),
            _ => None,
        });
        for (number, row) in rows.flatten().enumerate() {
            row.2 = format!("id{number}");
        }
        operations
    })
}

/// The core or its plain form.
trait Windows {
    type Closed: Clone;
    fn observe(&mut self, model: &str, rows: &[Row], width: usize) -> usize;
    fn peaks(&self) -> usize;
    fn drain(&mut self) -> Self::Closed;
    fn merge(one: &mut Self::Closed, other: Self::Closed);
    fn recode(closed: &Self::Closed) -> Self::Closed;
    fn report(closed: &Self::Closed) -> Vec<Line>;
}

impl Windows for Aggregator {
    type Closed = Snapshot;

    fn observe(&mut self, model: &str, rows: &[Row], width: usize) -> usize {
        observe(self, model, rows, width, &mut Tally::default())
    }

    fn peaks(&self) -> usize {
        usize::try_from(self.peaks()).expect("few")
    }

    fn drain(&mut self) -> Snapshot {
        Self::drain(self)
    }

    fn merge(one: &mut Snapshot, other: Snapshot) {
        one.merge(other);
    }

    fn recode(closed: &Snapshot) -> Snapshot {
        Snapshot::decode(&closed.encode()).expect("just encoded")
    }

    fn report(closed: &Snapshot) -> Vec<Line> {
        closed.report().iter().map(line).collect()
    }
}

impl Windows for Plain {
    type Closed = PlainSnapshot;

    fn observe(&mut self, model: &str, rows: &[Row], _: usize) -> usize {
        self.observe(model, rows)
    }

    fn peaks(&self) -> usize {
        self.peaks()
    }

    fn drain(&mut self) -> PlainSnapshot {
        self.drain()
    }

    fn merge(one: &mut PlainSnapshot, other: PlainSnapshot) {
        one.merge(other);
    }

    fn recode(closed: &PlainSnapshot) -> PlainSnapshot {
        closed.clone()
    }

    fn report(closed: &PlainSnapshot) -> Vec<Line> {
        closed.report()
    }
}

/// What an operation answers.
#[derive(Debug, PartialEq)]
enum Answer {
    Taken(usize),
    Peaks(usize),
    Report(Vec<Line>),
}

/// Everything that operations answer, and the report of each window and merger at the end.
fn answers<W: Windows>(mut windows: W, operations: &[Operation]) -> Vec<Answer> {
    let mut closed: Vec<W::Closed> = vec![windows.drain()];
    let mut answers = Vec::new();
    for operation in operations {
        match operation {
            Operation::Observe(model, rows, width) => {
                answers.push(Answer::Taken(windows.observe(model, rows, *width)));
                answers.push(Answer::Peaks(windows.peaks()));
            }
            Operation::Drain => closed.push(windows.drain()),
            Operation::Merge(one, other) => {
                let other = other.get(&closed).clone();
                let one = one.index(closed.len());
                W::merge(&mut closed[one], other);
            }
            Operation::Recode(one) => {
                let one = one.index(closed.len());
                closed[one] = W::recode(&closed[one]);
            }
            Operation::Report(one) => answers.push(Answer::Report(W::report(one.get(&closed)))),
        }
    }
    closed.push(windows.drain());
    answers.extend(closed.iter().map(|closed| Answer::Report(W::report(closed))));
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_core_answers_every_operation_as_its_plain_form(operations in operations()) {
        prop_assert_eq!(answers(Aggregator::default(), &operations), answers(Plain::new(Rule::AsSpecified), &operations));
    }
}

#[test]
fn random_operations_tell_every_wrong_rule_from_the_right_one() {
    let mut runner = TestRunner::deterministic();
    let mut unsuspected = WRONG_RULES.to_vec();
    for _ in 0..2_000 {
        let operations = operations().new_tree(&mut runner).expect("nothing is filtered").current();
        let right = answers(Plain::new(Rule::AsSpecified), &operations);
        unsuspected.retain(|&rule| answers(Plain::new(rule), &operations) == right);
    }
    assert_eq!(unsuspected, []);
}
