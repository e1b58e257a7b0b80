"""Fork while threads observe the first frames of the process; tell how many hang."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
from common import frame, say
from mutant import MUTANT

from peakhold import PeakAggregator, unique_inference_ids

FORKS = 12
PATIENCE = 5.0
BETWEEN_STARTS = 30e-6


class MadeOnce:
    """What the mutant makes at its first use, with others let in half-way."""

    def __init__(self):
        """Make nothing yet."""
        self.lock = threading.Lock()
        self.value = None

    def get(self):
        """Return the value, which the first caller makes."""
        with self.lock:
            if self.value is None:
                time.sleep(0.001)
                self.value = 1
        return self.value


made_once = MadeOnce()
window = PeakAggregator()
texts = np.array(["text"] * 40)
detections = SimpleNamespace(
    xyxy=np.zeros((40, 4)),
    confidence=np.full(40, 0.5),
    class_id=np.zeros(40, dtype=np.int64),
    data={"class_name": texts, "inference_id": texts, "prediction_type": texts},
)
classification = frame("a")


def use():
    """Use the extension as both blocks do."""
    if MUTANT == "made_once":
        made_once.get()
    for predictions in (detections, classification):
        window.observe(predictions, "m/1")
        unique_inference_ids(predictions)


def start_observers():
    """Start threads one after the other, so that some are in the midst of it."""
    for _ in range(FORKS):
        threading.Thread(target=use).start()
        time.sleep(BETWEEN_STARTS)


def fork():
    """Fork a child that uses the extension."""
    child = os.fork()
    if child == 0:
        use()
        os._exit(0)
    return child


def ended(child, deadline):
    """Wait for a child; returns whether it ended by itself."""
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.002)
    return True


sys.setswitchinterval(1e-6)
starter = threading.Thread(target=start_observers)
starter.start()
children = [fork() for _ in range(FORKS)]
deadline = time.monotonic() + PATIENCE
starter.join()
say("hangs", sum(not ended(child, deadline) for child in children))
