"""The contenders that are whole blocks: peakhold's, and the reference's if it is here.

Both are made as a host makes them, and send to the loopback server. The reference gets
a pool that runs nothing before it is told to: its threads would take the interpreter
from the `run` that is timed, and the comparison is to lean to its side.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import reference
from frames import FIELD, MODEL_ID

import peakhold
from peakhold.delivery import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import ThreadPoolExecutor

    from loopback import Loopback

KEY = "bench-key"
NEVER = 1_000_000
"""A frequency in seconds that no benchmark lives to see."""

PERIOD = 1
"""The shortest frequency there is, in seconds."""

CLOSED = "Reporting happens in the background task"


class DeferredPool:
    """A thread pool as far as the reference uses one; its tasks wait."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], object]] = []

    def submit(self, task: Callable[[], object]) -> None:
        """Take a task."""
        self.tasks.append(task)

    def work(self) -> None:
        """Run what waits."""
        while self.tasks:
            self.tasks.pop(0)()


class _Cache(dict[str, Any]):
    """The quickest cache there is, for the reference alone: it asks at each frame."""

    def set(self, key: str, value: object, expire: float | None = None) -> None:  # noqa: ARG002
        self[key] = value


class Sinks(NamedTuple):
    """Both blocks of one contender."""

    aggregator: Any
    beside: Any
    """Another aggregator, for frames that keep the loop warm and are none of a window
    that is timed: the reference reports all frames of a block."""
    metadata: Any
    deliver: Callable[[], object]
    """Sends what is waiting, so that it does not fall into what is timed next."""


def connect(url: str, state: str) -> None:
    """Point peakhold at a server; before the first block is made.

    Its outbox is on disk, as by default, but not the one of the user.
    """
    os.environ["API_BASE_URL"] = url
    os.environ["PEAKHOLD_STATE_DIR"] = state
    os.environ["ROBOFLOW_API_KEY"] = KEY
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"


@contextmanager
def scratch() -> Iterator[str]:
    """Make a directory for the outbox of one process."""
    with TemporaryDirectory(prefix="peakhold-bench-") as directory:
        yield directory


def make_peakhold(pool: ThreadPoolExecutor | None = None) -> Sinks:
    """Return peakhold's blocks, with a host's pool if there is one."""
    return Sinks(
        peakhold.ModelMonitoringInferenceAggregatorBlockV1(thread_pool_executor=pool),
        peakhold.ModelMonitoringInferenceAggregatorBlockV1(),
        peakhold.RoboflowCustomMetadataBlockV1(),
        lambda: time.sleep(0.1),
    )


def _reference(server: Loopback) -> Sinks:
    pool = DeferredPool()
    arguments = {
        "cache": _Cache(),
        "api_key": KEY,
        "background_tasks": None,
        "thread_pool_executor": pool,
        "platform_client": reference.platform_client(server.url),
    }
    aggregator = reference.module("model_monitoring_inference_aggregator")
    metadata = reference.module("custom_metadata")
    return Sinks(
        aggregator.ModelMonitoringInferenceAggregatorBlockV1(**arguments),
        aggregator.ModelMonitoringInferenceAggregatorBlockV1(**arguments),
        metadata.RoboflowCustomMetadataBlockV1(**arguments),
        pool.work,
    )


def make(server: Loopback) -> dict[str, Sinks]:
    """Return the blocks by contender."""
    contenders = {"peakhold": make_peakhold()}
    if reference.installed():
        contenders["reference"] = _reference(server)
    return contenders


def finish() -> None:
    """Have peakhold deliver all it has, as at exit, while the server still answers."""
    current().close(timeout=30)


def observer(block: Any, key: str, frequency: int = PERIOD) -> Callable[[Any], Any]:
    """Return `run` of an aggregator, called as hosts call it."""

    def run(frame: Any) -> Any:
        return block.run(
            fire_and_forget=True,
            predictions=frame,
            frequency=frequency,
            unique_aggregator_key=key,
            model_id=MODEL_ID,
        )

    return run


def observing(
    block: Any, key: str, frames: list[Any], frequency: int = NEVER
) -> Callable[[], None]:
    """Return a sweep of `run` over frames, with no function of ours around each."""
    run = block.run

    def sweep() -> None:
        for frame in frames:
            run(
                fire_and_forget=True,
                predictions=frame,
                frequency=frequency,
                unique_aggregator_key=key,
                model_id=MODEL_ID,
            )

    return sweep


def registering(block: Any, frames: list[Any]) -> Callable[[], None]:
    """Return a sweep of `run` of a custom metadata block, likewise."""
    run = block.run
    name, value = FIELD

    def sweep() -> None:
        for frame in frames:
            run(
                fire_and_forget=True,
                field_name=name,
                field_value=value,
                predictions=frame,
            )

    return sweep


def wait_for_close(began: float, meanwhile: Callable[[], object]) -> None:
    """Return when a window that began at this monotonic time is just due.

    Awake for the last of it.

    Args:
        began: When the window began.
        meanwhile: Done over and over while awake.
    """
    due = began + PERIOD + 0.005
    time.sleep(max(0.0, due - 0.02 - time.monotonic()))
    while time.monotonic() < due:
        meanwhile()
