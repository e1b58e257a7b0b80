"""Observe a window for each argument, and leave by the normal way."""

from __future__ import annotations

import atexit
import sys
import time

from mutant import MUTANT

ended_at = 0.0
# Registered before peakhold's, so it runs after: how long the exit took.
atexit.register(lambda: say("took", time.monotonic() - ended_at))

from common import observe, say, sink  # noqa: E402 - see above

aggregator = sink()
for name in sys.argv[1:]:
    observe(aggregator, name, unique_aggregator_key=name)

if MUTANT == "patient":
    from peakhold.delivery import current

    atexit.register(current().close, 4.0)

ended_at = time.monotonic()
