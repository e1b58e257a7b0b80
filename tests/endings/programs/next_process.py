"""Use both sinks, and stay for so many seconds, or until nothing is left."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from frames import aggregate, attach

import peakhold

aggregate("next")
attach("next")
journals = Path(os.environ["PEAKHOLD_STATE_DIR"], "journals")
deadline = time.monotonic() + float(sys.argv[1])
while time.monotonic() < deadline and (
    peakhold.health()["counts"]["pending"] or len(list(journals.iterdir())) > 1
):
    time.sleep(0.05)
