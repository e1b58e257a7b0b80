"""R21: every seal is delivered, or pending, parked, dead, or dropped for a reason.

``conftest.py`` checks that after every test; here is what shows that it would see.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from conserving import Books
from stepping import Stepped

from peakhold.testing import Answer, refuse

REFUSALS = [refuse(400), refuse(402), refuse(503)]


@pytest.fixture
def left(api, tmp_path):
    """A directory with an outbox that holds seals in every state."""
    directory = tmp_path / "left"
    stepped = Stepped(api, directory)
    api.failures = [Answer(), *REFUSALS]
    for number in range(6):
        stepped.seal(window=f"w{number}", **{f"c{number}": 0.5})
        stepped.run(5.0)
    stepped.dispatcher.outbox.lost("overflow", 2)
    counts = stepped.counts()
    assert min(counts.delivered, counts.parked, counts.dead) > 0
    stepped.dispatcher.close(0)
    return directory


def test_seals_in_every_state_add_up(left, figure):
    books = Books()
    assert books.check(left) == 0
    assert books.outboxes == 1
    figure("R21", f"{books.sealed} seals in every state add up")


@pytest.mark.unbalanced
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            "DELETE FROM records WHERE number = (SELECT min(number) FROM records)",
            id="lost",
        ),
        pytest.param(
            "UPDATE totals SET value = value + 1 WHERE name = 'delivered'",
            id="delivered twice",
        ),
        pytest.param(
            "UPDATE totals SET value = value - 1 WHERE name = 'sealed'",
            id="never sealed",
        ),
        pytest.param(
            "DELETE FROM totals WHERE name = 'dropped:overflow'", id="without reason"
        ),
    ],
)
def test_the_control_a_seal_too_many_or_too_few_is_seen(left, change):
    with closing(sqlite3.connect(left / "outbox.sqlite3")) as database, database:
        assert database.execute(change).rowcount > 0
    assert Books().check(left) > 0
