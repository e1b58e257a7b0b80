"""Raise in the midst of calls of the sinks, as handlers of signals do, and look after.

A call is interrupted by tracing, where CPython calls signal handlers: when a function
begins, after a call, and where a loop turns. Or it is by real signals, anywhere.
"""

from __future__ import annotations

import contextlib
import dis
import faulthandler
import functools
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from types import SimpleNamespace

from common import KEY, frame, say, sink
from mutant import MUTANT

import peakhold
from peakhold import RoboflowCustomMetadataBlockV1, health
from peakhold.blocks.interval import Due
from peakhold.blocks.windows import Window
from peakhold.delivery import current, dispatcher
from peakhold.outbox import database
from peakhold.testing import RecordingClient

PACKAGE = Path(peakhold.__file__).parent
OTHERS = tuple(str(PACKAGE / name) for name in ("testing", "cli", "monitor"))
TRACED = (str(PACKAGE), contextlib.__file__, threading.__file__)
PATIENCE = 10.0
GOLDEN = 0.618033988749895
"""Of which the multiples are spread evenly between 0 and 1, less the whole."""
TAKE = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], timeout=2, isolation_level=None).execute("BEGIN IMMEDIATE")
"""


class Interruption(BaseException):
    """What the handler of a time limit raises."""


def begin_before_try(connection, act):
    """Begin the transaction outside of what would roll it back, with a wide gap."""
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(20):
        len(())
    with connection:
        return act(connection)


def acquire_before_try(self, sender, period, closed):
    """Take the lock outside of what would give it back."""
    if self.lock.acquire(blocking=False):
        try:
            caches = current().caches
            value = caches.read(sender.cache, self.interval.cache_key)
            due = self.interval.now(caches, value, period)
            if due is Due.REPORT:
                self._close(closed)
        finally:
            self.lock.release()


if MUTANT == "begin_before_try":
    database.committed = begin_before_try
if MUTANT == "acquire_before_try":
    Window.close_if_due = acquire_before_try
if MUTANT == "lock_in_python":
    dispatcher.threading = SimpleNamespace(RLock=threading.Condition)


MUTANTS = {begin_before_try.__code__, acquire_before_try.__code__}


@functools.cache
def points(code):
    """Return the offsets at which a signal handler may have been called just before."""
    traced = code.co_filename.startswith(TRACED)
    if not (traced or code in MUTANTS) or code.co_filename.startswith(OTHERS):
        return frozenset()
    read = dis.Bytecode(code)
    # From Python 3.11 on. What a handler raises comes of the call itself: not traced is
    # where the next instruction is not in the same ``try``.
    entries = getattr(read, "exception_entries", ())
    tries = {
        each.offset: [e.target for e in entries if e.start <= each.offset < e.end]
        for each in read
    }
    calls = ("CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "POP_JUMP_BACKWARD")
    return frozenset(
        after.offset
        for before, after in itertools.pairwise(read)
        if before.opname.startswith(calls)
        and "INTRINSIC" not in before.opname
        and tries[before.offset] == tries[after.offset]
    )


class Tracing:
    """Raises at one point of a call after the other, evenly spread over it."""

    def __init__(self, _draw):
        """Start knowing nothing of the calls."""
        self._turns = Counter()
        self._longest = {}
        self._left = 0

    def interrupt(self, name, call):
        """Make a call; returns what it returns, or raises ``Interruption``."""
        longest = self._longest.get(name, 1_000)
        self._turns[name] += 1
        self._left = at = 1 + int(longest * (self._turns[name] * GOLDEN % 1))
        sys.settrace(self._enter)
        try:
            return call()
        finally:
            sys.settrace(None)
            if self._left > 0:  # it was not that long
                self._longest[name] = max(50, at - self._left)
            else:
                self._longest[name] = max(longest, at + 200)

    def _enter(self, traced, _event, _argument):
        found = points(traced.f_code)
        if not found:
            return None
        self._pass()
        traced.f_trace_opcodes = True
        traced.f_trace_lines = False
        return self._step

    def _step(self, traced, event, _argument):
        if event == "opcode" and traced.f_lasti in points(traced.f_code):
            self._pass()
        return self._step

    def _pass(self):
        self._left -= 1
        if self._left == 0:
            raise Interruption


class Signals:
    """Has a signal raise after the one or other time."""

    def __init__(self, draw):
        """Draw the times from a source of randomness."""
        self._draw = draw
        self._took = {}
        signal.signal(signal.SIGALRM, self._raise)

    @staticmethod
    def _raise(*_):
        raise Interruption

    def interrupt(self, name, call):
        """Make a call; returns what it returns, or raises ``Interruption``."""
        begin = time.perf_counter()
        longest = self._took.get(name, 0.01)
        try:
            try:
                after = max(2e-6, self._draw.uniform(0.0, longest))
                signal.setitimer(signal.ITIMER_REAL, after)
                return call()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interruption:
            self._took[name] = longest * 1.05
            raise
        finally:
            self._took[name] = 0.9 * self._took.get(name, longest) + 0.1 * (
                time.perf_counter() - begin
            )


class Cache(dict):
    """A host's cache."""

    def set(self, key, value, expire=None):
        """Store a value."""
        self[key] = value


class Streams:
    """The two sinks, and what they have answered for.

    Attributes:
        accepted: The classes and the ids of inferences for which ``run`` returned.
        interrupted: How many calls did not.
    """

    def __init__(self, how, draw, client):
        """Make them; without a client they send by HTTP."""
        self.accepted = set()
        self.interrupted = 0
        self._how = how
        self._draw = draw
        self._numbers = itertools.count()
        self._cache = Cache()
        self._monitoring = sink(cache=self._cache, platform_client=client)
        self._metadata = RoboflowCustomMetadataBlockV1(
            cache=self._cache, api_key=KEY, platform_client=client
        )
        self._kept = deque(maxlen=50)  # as a notebook keeps the last one

    def observe(self, *, later=False):
        """Run the first sink; returns its answer."""
        name = f"c{next(self._numbers)}"
        answer = self._monitoring.run(
            fire_and_forget=later,
            predictions=frame(name),
            frequency=3600,
            unique_aggregator_key="k",
            model_id="m/1",
        )
        self.accepted.add(name)
        return answer

    def report(self, *, later=False):
        """Run it when its window is due."""
        self._cache.clear()
        for window in self._monitoring._windows.values():
            window.interval.last_report = time.monotonic() - 7200
        return self.observe(later=later)

    def attach(self, *, later=False):
        """Run the other sink; returns its answer."""
        name = f"id-m{next(self._numbers)}"
        answer = self._metadata.run(
            fire_and_forget=later,
            field_name="f",
            field_value="v",
            predictions={"inference_id": name},
        )
        self.accepted.add(name)
        return answer

    def interrupt(self):
        """Interrupt one of the calls there are."""
        self.observe()  # which the window has accepted, whatever comes
        calls = {
            "report": self.report,
            "report later": functools.partial(self.report, later=True),
            "attach": self.attach,
            "attach later": functools.partial(self.attach, later=True),
            "health": health,
            "flush": lambda: current().flush(0.02),
        }
        name = self._draw.choices([*calls], weights=(4, 2, 2, 1, 1, 1))[0]
        try:
            self._how.interrupt(name, calls[name])
        except Interruption as error:
            self.interrupted += 1
            self._kept.append(error)

    def answers(self):
        """Return what both sinks and ``health`` answer to another thread."""
        found = []

        def ask():
            found.extend([self.report()["message"], self.attach()["message"]])
            found.append(health()["disk_error"])

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(PATIENCE)
        return found


def is_free(path):
    """Whether another process can write the outbox."""
    command = [sys.executable, "-c", TAKE, path]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def received(client):
    """Return the classes and the ids that a client was given."""
    found = {
        line["class_name"]
        for each in client.reports()
        for line in each["inference_results"]
    }
    for entry in client.entries():
        found.update(entry["inference_ids"])
    return found


def main(how, count, seed, direct):
    """Interrupt so many calls; say what was found."""
    faulthandler.dump_traceback_later(200, exit=True)
    draw = random.Random(int(seed))
    client = RecordingClient() if direct == "direct" else None
    streams = Streams({"trace": Tracing, "signal": Signals}[how](draw), draw, client)
    streams.report()
    while streams.interrupted < int(count):
        streams.interrupt()
    deliverer = current()
    path = Path(os.environ["PEAKHOLD_STATE_DIR"], "outbox.sqlite3")
    found = {"answers": streams.answers(), "free": is_free(path)}
    found["flushed"] = bool(found["answers"]) and deliverer.flush(60)
    counts = deliverer.counts()
    found["unaccounted"] = counts.unaccounted
    found["left"] = counts.pending + counts.parked + counts.dead
    found["dropped"] = sum(counts.dropped.values())
    found["accepted"] = len(streams.accepted)
    if client:
        found["lost"] = len(streams.accepted - received(client))
    else:
        say("accepted", json.dumps(sorted(streams.accepted)))
    say("found", json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
