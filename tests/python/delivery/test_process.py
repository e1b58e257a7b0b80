"""The process's dispatcher: one, and as the environment says."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from stand_ins import eventually, window_of

import peakhold
from peakhold.delivery import process
from peakhold.delivery.settings import METADATA_RATE_VARIABLE
from peakhold.records import seal_report


@pytest.fixture
def nobody_yet(monkeypatch):
    monkeypatch.setattr(process, "_current", None)
    return monkeypatch


def test_there_is_one_dispatcher_however_many_threads_ask(nobody_yet):
    found = []
    together = threading.Barrier(8)

    def ask():
        together.wait()
        found.append(process.current())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


@pytest.mark.parametrize(
    ("value", "seconds"), [("", 0.25), ("4", 0.25), ("2.5", 0.4), ("1000", 0.001)]
)
def test_the_metadata_rate_comes_from_the_environment(
    nobody_yet, sender, client, value, seconds
):
    nobody_yet.setenv(METADATA_RATE_VARIABLE, value)
    dispatcher = process.current()
    dispatcher.add_metadata(["i"], "f", "v", sender)
    (destination,) = dispatcher._destinations.values()
    assert dispatcher.flush(5)
    sent_at = destination.metadata_pace._sent[0]
    assert destination.metadata_pace.next_at() - sent_at == pytest.approx(seconds)
    dispatcher.close(0)


@pytest.mark.parametrize("value", ["0", "-1", "four", "inf", "nan"])
def test_a_metadata_rate_that_is_none_is_an_error_with_the_remedy(nobody_yet, value):
    nobody_yet.setenv(METADATA_RATE_VARIABLE, value)
    with pytest.raises(ValueError, match=r"must be a number of requests .* above 0"):
        process.current()


@pytest.mark.parametrize("call", [peakhold.health, peakhold.flush])
def test_health_and_flush_raise_what_is_documented_of_a_variable(nobody_yet, call):
    nobody_yet.setenv("PEAKHOLD_OUTBOX_MIB", "banana")
    with pytest.raises(ValueError, match="PEAKHOLD_OUTBOX_MIB must be") as raised:
        call()
    page = Path(__file__).resolve().parents[3] / "docs" / "environment.md"
    documented = " ".join(page.read_text(encoding="utf-8").split())
    assert f"`PEAKHOLD_OUTBOX_MIB=banana` is `{raised.value}`" in documented


def test_nothing_starts_a_thread_before_there_is_work(nobody_yet, sender, new_threads):
    dispatcher = process.current()
    assert new_threads() == new_threads("peakhold-clock") == []
    dispatcher.deliver(
        seal_report(sender.destination, "w", window_of({"a": 0.5})), sender
    )
    assert eventually(new_threads)
    (clock,) = new_threads("peakhold-clock")
    threads = [clock, *new_threads()]
    assert all(thread.daemon for thread in threads)
    dispatcher.close(5)
    assert dispatcher.counts().delivered == 1
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
