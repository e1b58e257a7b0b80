"""Processes that observe into one window, and what became of what they saw."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress

KILLS = int(os.environ.get("PEAKHOLD_TEST_KILLS", "8"))
"""More of them, for a long run: PEAKHOLD_TEST_KILLS=200."""
PROCESSES = 4
PATIENCE = 40.0


class Children:
    """Processes that observe into one window.

    Attributes:
        living: Their process ids by number.
        seen: The best confidence of each that it told.
        died: The numbers of those that had themselves killed.
        frames: How many they have observed.
        left: What those that were not killed told of ``health()["sharing"]``.
    """

    def __init__(self, *nurseries):
        """Fork from one ``nursery`` after the other: each is a host of its own."""
        self.nurseries = nurseries
        self.living = {}
        self.seen = {}
        self.died = set()
        self.frames = 0
        self.left = []

    def fork(self, number):
        """Fork a child; the hosts take turns by its number."""
        nursery = self.nurseries[number % len(self.nurseries)]
        nursery.tell(number)
        while number not in self.living and number not in self.died:
            self.take(nursery.hear().split())

    def take(self, words):
        """Take in a line."""
        what, *told = words
        if what in {"born", "forked"}:
            self.living[int(told[0])] = int(told[1])
        elif what == "died":
            self.died.add(int(told[0]))
            self.living.pop(int(told[0]), None)
        elif what == "seen":
            name, confidence = told
            self.frames += 1
            self.seen[name] = max(float(confidence), self.seen.get(name, 0.0))
        elif what == "left":
            self.left.append(json.loads(" ".join(told)))

    def listen(self, seconds):
        """Take in what they tell for some seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            talking = [each for each in self.nurseries if not each.lines.empty()]
            for nursery in talking:
                self.take(nursery.hear().split())
            if not talking:
                time.sleep(0.01)

    def signal(self, number, what):
        """Send one a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.living[number], what)

    def kill(self, number):
        """Kill one."""
        self.signal(number, signal.SIGKILL)
        del self.living[number]

    def kill_all(self):
        """Kill all, and take in the rest of what they told."""
        for number in list(self.living):
            self.kill(number)
        self.leave()

    def leave(self):
        """Have all end by themselves, and take in the rest of what they told."""
        for nursery in self.nurseries:
            if not nursery.process.stdin.closed:
                nursery.process.stdin.close()
                nursery.ended()
                for line in nursery.rest():
                    if line.startswith(("seen", "left")):
                        self.take(line.split())
        self.living.clear()


def reports(api):
    """Each report once, as class and confidence."""
    bodies = {
        request.headers["Idempotency-Key"]: request.body
        for request in api.accepted(kind="report")
    }
    found = []
    for body in bodies.values():
        results = json.loads(body)["inference_results"]
        found.append({each["class_name"]: each["confidence"] for each in results})
    return [each for each in found if "drained" not in each]


def observers(names):
    """Return the processes that some names of ``programs/sharing.py`` are of."""
    return {name.partition("-")[0] for name in names}


def peaks_of(window):
    """Return a window that a monitor got as class and confidence."""
    return {each["class_name"]: each["confidence"] for each in window["peaks"]}


def lost_and_repeated(api, seen):
    """Return the maxima that are in no report, and those that are in two."""
    return lost_and_repeated_of(reports(api), seen)


def lost_and_repeated_of(reports, seen):
    """Return the maxima that some reports have not, and those that two have."""
    found = Counter(pair for each in reports for pair in each.items())
    best = {}
    for name, confidence in found:
        best[name] = max(confidence, best.get(name, 0.0))
    lost = {name for name, confidence in seen.items() if best.get(name, 0) < confidence}
    return lost, {pair for pair, times in found.items() if times > 1}


def kill_in_gaps(children, gaps):
    """Have a process killed after each step of ``programs/sharing.py``."""
    for number in range(gaps):
        children.fork(number)
    deadline = time.monotonic() + PATIENCE
    while len(children.died) < gaps and children.living and time.monotonic() < deadline:
        children.listen(0.1)
    children.kill_all()


def kill_at_random(children, first, seed, kills):
    """Kill, stop and fork.

    Args:
        children: Of whom.
        first: The number of the first one.
        seed: Of the moments.
        kills: How many.
    """
    draw = random.Random(seed)
    for number in range(first, first + PROCESSES):
        children.fork(number)
    children.listen(1.0)
    children.signal(first, signal.SIGSTOP)  # for longer than others wait
    children.listen(3.0)
    children.signal(first, signal.SIGCONT)
    for number in range(first + PROCESSES, first + PROCESSES + kills):
        children.fork(number)
        late = draw.choice(list(children.living))
        children.signal(late, signal.SIGSTOP)
        children.listen(draw.uniform(0.1, 1.0))
        if draw.random() < 0.7:
            children.listen(draw.uniform(0.0, 1.0))
            children.signal(late, signal.SIGCONT)
        children.kill(draw.choice(list(children.living)))
    children.kill_all()
