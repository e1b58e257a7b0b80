"""What the outboxes of a run say that became of every seal."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass

from peakhold.outbox.ledger import counts_of


@dataclass
class Books:
    """Those of all tests.

    Attributes:
        outboxes: How many there were.
        sealed: Seals in them.
    """

    outboxes: int = 0
    sealed: int = 0

    def check(self, directory):
        """Take in the outboxes below a directory; returns the seals unexplained."""
        unexplained = 0
        for path in directory.rglob("outbox.sqlite3"):
            with closing(sqlite3.connect(path)) as database:
                counts = counts_of(database)
            self.outboxes += 1
            self.sealed += counts.sealed
            unexplained += abs(counts.unaccounted)
        return unexplained
