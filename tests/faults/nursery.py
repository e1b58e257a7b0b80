"""Children that come in no time and are killed at random."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Said:
    """What the children of a run told before they were killed.

    Attributes:
        lines: Their lines, each split into words.
        kills: How many children were killed.
    """

    lines: list[list[str]] = field(default_factory=list)
    kills: int = 0

    def of(self, word):
        """Return the rest of every line that begins with a word."""
        return [line[1:] for line in self.lines if line[0] == word]


def kill_at_random(process, kills, seed, *, longest, at_once=2):
    """Start children and kill each at a random moment; returns what they said.

    Args:
        process: A ``nursery`` program.
        kills: How many.
        seed: Of the moments.
        longest: Seconds that one lives at most.
        at_once: How many live at the same time.
    """
    moments = random.Random(seed)
    said = Said()
    living = []
    for number in range(kills):
        process.tell(number)
        while (words := process.hear().split())[0] != "born":
            said.lines.append(words)
        living.append(int(words[2]))
        time.sleep(moments.uniform(0, longest) / at_once)
        if len(living) == at_once:
            said.kills += _kill(living.pop(0))
    for child in living:
        said.kills += _kill(child)
    process.process.stdin.close()
    assert process.ended() == 0, process.errors()
    said.lines += [line.split() for line in process.rest()]
    return said


def _kill(child):
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
        return 1
    return 0
