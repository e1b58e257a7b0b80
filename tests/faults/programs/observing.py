"""Observe rising confidences, and tell each once it was taken."""

from __future__ import annotations

import os
import random
from dataclasses import replace

from common import observe, say, sink
from mutant import MUTANT
from sealing import prepare

from peakhold.blocks.windows import REGISTRY
from peakhold.delivery.journal import Journals

CLOSE_ONE_IN = 400

if MUTANT.startswith("keep_journals"):  # as if killed before it could remove them
    _seal = Journals.seal
    Journals.seal = lambda *args, **options: replace(
        _seal(*args, **options), on_committed=None
    )


def work(number):
    """Observe until killed or orphaned, and close a window at times."""
    parent = os.getppid()
    prepare()
    aggregator = sink()
    draw = random.Random(number)
    best = 0.0
    while os.getppid() == parent:
        name = f"c{number}-{draw.randrange(5)}"
        best += (1.0 - best) * 0.001
        if MUTANT == "tell_before_observing":
            say("seen", name, best)
        observe(aggregator, name, best)
        if MUTANT != "tell_before_observing":
            say("seen", name, best)
        if draw.randrange(CLOSE_ONE_IN) == 0:
            for window in list(REGISTRY._windows.values()):
                window.flush()
