"""Import the sinks, patch the standard library, then use them in many greenlets."""

from __future__ import annotations

import faulthandler
import sys
import warnings

faulthandler.dump_traceback_later(20, exit=True)

import peakhold.blocks  # noqa: E402, F401 - before the patch

library, number = sys.argv[1], int(sys.argv[2])
if library == "gevent":
    import gevent.monkey

    gevent.monkey.patch_all()
    spawn = gevent.spawn
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import eventlet

    eventlet.monkey_patch()
    spawn = eventlet.spawn

from frames import aggregate, attach  # noqa: E402 - likewise


def use(name):
    """Call both sinks, for the first time in this greenlet."""
    aggregate(name)
    attach(name)


for greenlet in [spawn(use, f"greenlet-{number}") for number in range(number)]:
    getattr(greenlet, "get", getattr(greenlet, "wait", None))()
