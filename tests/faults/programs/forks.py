"""Fork while threads observe and deliver; tell every child that hangs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from mutant import MUTANT

_register = os.register_at_fork


def register_less(**hooks):
    """Register what is to happen at a fork, unless the mutant does without it."""
    in_child = getattr(hooks.get("after_in_child"), "__qualname__", "")
    if MUTANT == "keep_windows" and in_child != "WindowRegistry.start_anew":
        _register(**hooks)


if MUTANT in {"no_new_start", "keep_windows"}:
    os.register_at_fork = register_less  # before peakhold is imported

from common import observe, say, sink  # noqa: E402 - the hooks come first

from peakhold.blocks.windows import REGISTRY  # noqa: E402 - the same
from peakhold.delivery import current  # noqa: E402 - the same


def keep_windows():
    """Have a child report its parent's windows, by its own dispatcher."""
    for window in list(REGISTRY._windows.values()):
        window._watcher = None


if MUTANT == "keep_windows":
    _register(after_in_child=keep_windows)

FORKS = int(sys.argv[1])
WINDOWS = 6
PATIENCE = 5.0
EVERY_NTH_LEAVES_IN_ORDER = 25


class SlowCache(dict):
    """A host's cache that is asked while a window is locked, and takes its time."""

    def get(self, key):
        """Answer after a millisecond."""
        time.sleep(0.001)
        return super().get(key)

    def set(self, key, value, expire=None):
        """Take a value."""
        self[key] = value


class SlowTimer:
    """A timer that takes its time to be found, which is while the lock is held."""

    def __hash__(self):
        """Answer after a millisecond."""
        time.sleep(0.001)
        return 1

    def __eq__(self, other):
        """Be the same as any other."""
        return isinstance(other, SlowTimer)

    def __call__(self, _now):
        """Never come again."""


aggregator = sink(cache=SlowCache())
observe(aggregator, "parent-once", unique_aggregator_key="parent-once")
stop = threading.Event()
# Else the forking thread gets its turn only every few hundredths of a second.
sys.setswitchinterval(0.0005)


def watch():
    """Hold the dispatcher's lock most of the time."""
    while not stop.is_set():
        current().watch(SlowTimer(), time.monotonic() + 60)


def stream():
    """Observe and close windows all the time."""
    number = 0
    while not stop.is_set():
        number += 1
        observe(
            aggregator,
            f"parent{number % 7}",
            frequency=1,
            unique_aggregator_key=f"k{number % WINDOWS}",
        )


def fork(number):
    """Fork a child that uses the sink; returns whether it ended by itself."""
    child = os.fork()
    if child == 0:
        observe(aggregator, f"child-{number}")
        current().watch(SlowTimer(), time.monotonic() + 60)
        if number % EVERY_NTH_LEAVES_IN_ORDER == 0:
            sys.exit()
        os._exit(0)
    deadline = time.monotonic() + PATIENCE
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.0005)
    return True


threads = [threading.Thread(target=target) for target in (stream, stream, watch)]
for thread in threads:
    thread.start()
hangs = 0
for number in range(FORKS):
    hangs += not fork(number)
    if hangs and MUTANT:
        break  # that is enough for a control
stop.set()
for thread in threads:
    thread.join()
say("hangs", hangs)
