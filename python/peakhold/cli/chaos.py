"""The demo with everything going wrong: a bad server, and a worker that is killed.

Several workers live one after the other, each until it is killed at whatever it is
doing; the windows and records that they leave are taken over by the next one, and at
the end, when the server is well again, by this process.
"""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peakhold.cli.chaos_worker import frames_of
from peakhold.cli.errors import CommandError
from peakhold.cli.flush import deliver_what_waits
from peakhold.cli.looking import say_wrapped
from peakhold.cli.predictions import DetectionPrediction
from peakhold.cli.status import conservation
from peakhold.cli.terminal import say, working
from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox import StateDirectory, admin
from peakhold.roboflow import Settings
from peakhold.roboflow.settings import ENVIRONMENT
from peakhold.testing import (
    Answer,
    LostAcknowledgement,
    MisbehavingApi,
    RandomFaults,
    Reset,
    refuse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peakhold.cli.recording import Frame
    from peakhold.testing import Request

LIVES = 4
_API_KEY = "demo"
_PATIENCE = 60.0
"""Seconds for what waits in the end."""
_RATE = 100.0
"""Requests a second then, which the server of a demo can take."""

_FAULTS = (
    (0.08, Answer(503)),
    (0.04, refuse(429, retry_after=1)),
    (0.05, LostAcknowledgement()),
    (0.05, Reset()),
)

Peaks = dict[tuple[str, str], float]


def survive(fps: float, seconds: float) -> bool:
    """Show that nothing is lost; returns whether nothing was.

    Args:
        fps: Frames per second of a worker.
        seconds: How long all workers live together, from their first frames on.
    """
    with (
        tempfile.TemporaryDirectory(prefix="peakhold-chaos-") as directory,
        MisbehavingApi() as api,
    ):
        # What goes wrong is wanted, and told in the end.
        logging.getLogger("peakhold").setLevel(logging.ERROR)
        api.faults = RandomFaults(7, *_FAULTS)
        say_wrapped(
            f"A server that fails {sum(odds for odds, _ in _FAULTS):.0%} of all "
            f"requests, and a worker that is killed {LIVES} times"
        )
        environment = _environment(api.url, directory)
        promised: Peaks = {}
        for life in range(LIVES):
            taken = _live(life, fps, seconds / LIVES, environment)
            say(f"Worker {life + 1}: killed after frame {taken:,}")
            promised |= _peaks(itertools.islice(frames_of(life), taken))
        state = StateDirectory(Path(directory))
        left = admin.status(state)
        say_wrapped(
            f"Left behind: {left['counts']['pending']:,} records in the outbox, "
            f"{left['windows']['left']:,} windows or batches of metadata in journals; "
            "now the server is well again"
        )
        api.faults = None
        with working("Delivering what they left"):
            deliver_what_waits(
                state,
                DeliverySettings(rate=_RATE, metadata_rate=_RATE),
                Settings(api_base_url=api.url),
                _API_KEY,
                _PATIENCE,
            )
        return tell(api, admin.status(state), promised)


def _environment(url: str, directory: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ENVIRONMENT and not name.startswith("PEAKHOLD_")
    }
    return {
        **inherited,
        "API_BASE_URL": url,
        "ROBOFLOW_API_KEY": _API_KEY,
        "PEAKHOLD_STATE_DIR": directory,
    }


def _live(life: int, fps: float, seconds: float, environment: dict[str, str]) -> int:
    """Run a worker and kill it; returns how many frames it said that it took.

    Raises:
        CommandError: It ended by itself.
    """
    command = [sys.executable, "-m", "peakhold.cli.chaos_worker", str(life), str(fps)]
    taken, killed = 0, threading.Event()
    with subprocess.Popen(  # noqa: S603 - this interpreter, with numbers
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as worker:

        def kill() -> None:
            killed.set()
            worker.kill()

        end = threading.Timer(seconds, kill)
        try:
            for line in worker.stdout or ():
                if not taken:
                    end.start()
                if line.endswith(b"\n"):  # or it was killed as it wrote it
                    taken = int(line)
        finally:
            end.cancel()
            worker.kill()
    if not killed.is_set():
        raise CommandError("the worker ended by itself; what it said is above")
    return taken


def _peaks(frames: Iterable[Frame]) -> Peaks:
    """Return the highest confidence of each model and class."""
    peaks: Peaks = {}
    for prediction in itertools.chain(*(frame.predictions for frame in frames)):
        if isinstance(prediction, DetectionPrediction):
            rows = zip(prediction.class_name, prediction.confidence, strict=True)
            for class_name, confidence in rows:
                key = (prediction.model_id, str(class_name))
                peaks[key] = max(peaks.get(key, 0.0), float(confidence))
    return peaks


def tell(api: MisbehavingApi, status: dict[str, Any], promised: Peaks) -> bool:
    """Print what became of everything; returns whether it is as promised.

    Args:
        api: The server, which knows what it took.
        status: What the outbox says of itself.
        promised: What the workers had taken.
    """
    counts = status["counts"]
    requests = api.accepted()
    arrived = _bodies(requests)
    best: Peaks = {}
    for row in api.results():
        key = (row["model_id"], row["class_name"])
        best[key] = max(best.get(key, 0.0), row["confidence"])
    peaks = sum(best.get(key, -1.0) < peak for key, peak in promised.items())
    altered = sum(len(bodies) > 1 for bodies in arrived.values())
    records = counts["delivered"] - len(arrived)
    waiting = counts["pending"] + counts["parked"] + status["windows"]["left"]
    given_up = counts["dead"] + sum(counts["dropped"].values())
    say_wrapped(
        f"Requests: {len(api.posts()):,}; taken: {len(requests):,}, of which "
        f"{len(requests) - len(arrived):,} again, with the same key, after an answer "
        "that did not arrive"
    )
    say_wrapped(conservation(counts))
    problems = {
        "peaks that a worker had taken did not arrive": peaks,
        "delivered records did not arrive": records,
        "records were sent with more than one body": altered,
        "records or windows wait": waiting,
        "records were given up": given_up,
        "seals are not accounted for": status["unaccounted"],
    }
    for problem, number in problems.items():
        if number:
            say(f"peakhold demo: {number:,} {problem}", error=True)
    if any(problems.values()):
        return False
    say(f"Lost: 0 of {counts['sealed']:,} records, 0 of {len(promised):,} peaks.")
    return True


def _bodies(requests: Iterable[Request]) -> dict[str, set[bytes]]:
    """Return the bodies that arrived under each idempotency key."""
    arrived: dict[str, set[bytes]] = {}
    for request in requests:
        arrived.setdefault(request.headers["Idempotency-Key"], set()).add(request.body)
    return arrived
