"""What is due when."""

from __future__ import annotations

from peakhold.delivery.schedule import Schedule


def test_a_task_is_due_once_at_its_earliest_time():
    schedule = Schedule()
    assert schedule.add("a", 10.0)
    assert schedule.add("a", 5.0)
    assert not schedule.add("a", 7.0)
    assert schedule.take_due(4.9) == []
    assert schedule.take_due(20.0) == ["a"]
    assert schedule.next_at() == float("inf")


def test_a_task_that_is_taken_is_due_again_when_it_is_done():
    schedule = Schedule()
    schedule.add("a", 1.0)
    assert schedule.take_due(1.0) == ["a"]
    assert not schedule.add("a", 2.0)
    assert schedule.take_due(3.0) == []
    assert schedule.done("a")
    assert schedule.take_due(3.0) == ["a"]
    assert not schedule.done("a")
