"""Model Monitoring Inference Aggregator: one representative per class and interval."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from peakhold._peakhold import PeakAggregator
from peakhold.blocks.epochs import SharedWindow
from peakhold.blocks.handover import (
    OFFLINE,
    SINK_DISABLED,
    Sink,
    SinkResult,
    failure,
    missing_key,
    result,
)
from peakhold.blocks.interval import whole_seconds
from peakhold.blocks.windows import REGISTRY, ClosedWindow, Window, WindowKey
from peakhold.delivery import current
from peakhold.roboflow.api_key import without_locals
from peakhold.texts import text_of

if TYPE_CHECKING:
    from peakhold.delivery import Sender
    from peakhold.delivery.cache import Cache
    from peakhold.roboflow import ApiKey
    from peakhold.roboflow.operations import PlatformClient

NOT_IN_RANGE = "Not in reporting range, skipping report. (Ok)"
IN_BACKGROUND = "Reporting happens in the background task"
SENT = "Data sent successfully"
FAILED = "Error while uploading inference data."

_Windows: TypeAlias = "dict[str | tuple[str, str], Window]"

_FEW = 16
"""Windows up to which a block does not look for those that were given up."""


class ModelMonitoringInferenceAggregatorBlockV1(Sink):
    """Collects predictions and reports the best of each class every few seconds.

    Blocks of one api key, endpoint and ``unique_aggregator_key`` share a window, so a
    host may make one per request. Where frames name their feed, each feed has a window.

    Raises:
        ValueError: If there is no api key, neither given nor in the environment, or if
            ``PEAKHOLD_MAX_CLASSES`` or ``PEAKHOLD_MAX_FEEDS`` is not a whole number of
            at least 1.
    """

    @without_locals
    def __init__(
        self,
        cache: Cache | None = None,
        api_key: ApiKey | str | None = None,
        background_tasks: Any = None,
        thread_pool_executor: Any = None,
        disable_sinks: bool = False,
        platform_client: PlatformClient | None = None,
    ) -> None:
        """See ``Sink``."""
        super().__init__(
            cache,
            api_key,
            background_tasks,
            thread_pool_executor,
            disable_sinks,
            platform_client,
        )
        if self._sender is None and not self._disabled:
            raise missing_key("ModelMonitoringInferenceAggregator")
        if not self._disabled:
            PeakAggregator()  # complains about its environment here, not in a stream
        # By aggregator key, and feed where there is one.
        self._windows: _Windows = {}
        self._shared: dict[int, _Windows] = {}  # by their frequencies
        self._sweep_at = _FEW
        # As given, in seconds, and as a float: floats compare with floats much faster.
        # And its windows. One tuple, for threads may call with frequencies of their
        # own.
        self._frequency: tuple[object, int, float, _Windows]
        self._frequency = (object(), 0, 0.0, {})

    @property
    def rejected(self) -> dict[str, int]:
        """What was skipped so far in the open windows of this block, by reason."""
        total: Counter[str] = Counter()
        for windows in (self._windows, *list(self._shared.values())):
            for window in list(windows.values()):
                total.update(window.aggregator.rejected)
        return dict(total)

    def run(
        self,
        fire_and_forget: bool,
        predictions: Any,
        frequency: float | str,
        unique_aggregator_key: object,
        model_id: str,
        feed: object = None,
    ) -> SinkResult:
        """Take a frame's predictions in, and report if the interval is over.

        Args:
            fire_and_forget: Whether reporting may happen in the background.
            predictions: ``sv.Detections`` or a classification dict; may be empty.
            frequency: Seconds between reports: a whole number of any type, or a string
                of one.
            unique_aggregator_key: Names the window. What is not a string counts as its
                ``str``: keys of equal text share a window.
            model_id: The model that made the predictions.
            feed: Names the feed, a camera for example, whose window of its own the
                frame goes to; what is not a string counts as its ``str``. None and
                ``""`` name none: such frames have a common window, to which those of
                feeds beyond ``PEAKHOLD_MAX_FEEDS`` go, too.

        Raises:
            ValueError: If ``frequency`` is not a whole number of at least 1.
        """
        sender = self._sender
        if sender is None:
            return result(SINK_DISABLED)
        # Hosts pass the same object for every frame.
        given, period, due_after, windows = self._frequency
        if frequency is not given:
            period = whole_seconds(frequency)
            due_after = float(period)
            windows = self._windows
            if current().shares:
                windows = self._shared.setdefault(period, {})
            self._frequency = (frequency, period, due_after, windows)
        if type(unique_aggregator_key) is not str:
            unique_aggregator_key = text_of(unique_aggregator_key)
        if feed is None:
            window = windows.get(unique_aggregator_key)
        else:
            if type(feed) is not str:
                feed = text_of(feed)
            place = (unique_aggregator_key, feed) if feed else unique_aggregator_key
            window = windows.get(place)
        if window is None:
            key, feed = unique_aggregator_key, feed or None
            window = self._open(key, feed, sender, period, windows)
        window.period = period
        now = window.last_used = monotonic()
        window.aggregator.observe(predictions, model_id)
        if window.released:
            # It was given up just now, and its last flush may have missed this frame.
            window.flush()
            windows.pop(_place_of(window), None)
        elif now - window.interval.last_report >= due_after:
            return self._report(window, sender, period, fire_and_forget=fire_and_forget)
        return {"error_status": False, "message": NOT_IN_RANGE}

    def _open(
        self,
        unique_aggregator_key: str,
        feed: str | None,
        sender: Sender,
        period: int,
        windows: _Windows,
    ) -> Window:
        # Threads may share a block. What one loses here it finds in the registry again.
        if len(windows) >= self._sweep_at:
            for name, each in list(windows.items()):
                if each.released:
                    windows.pop(name, None)
            self._sweep_at = max(_FEW, 2 * len(windows))
        destination = sender.destination
        shared = windows is not self._windows
        key = WindowKey(
            destination.endpoint,
            destination.api_key_fingerprint,
            unique_aggregator_key,
            feed,
            frequency=period if shared else None,
        )
        kind = SharedWindow if shared else Window
        window = REGISTRY.acquire(key, sender, period, kind)
        # Of a feed beyond the bound it is the common one, and stands as such.
        windows[_place_of(window)] = window
        return window

    def _report(
        self, window: Window, sender: Sender, period: int, *, fire_and_forget: bool
    ) -> SinkResult:
        closed: list[ClosedWindow] = []
        try:
            window.close_if_due(sender, period, closed)
            if not closed:
                return result(NOT_IN_RANGE)
            offline = sender.offline
            if fire_and_forget or offline:
                schedule = self._schedule if fire_and_forget and not offline else None
                current().deliver(closed[0], sender, schedule=schedule)
                return result(OFFLINE if offline else IN_BACKGROUND)
            error = current().deliver_now(closed[0], sender, closed)
        except BaseException:
            # Of a signal handler's, for example. The frames of the window were
            # accepted: it goes out, once, all the same.
            for window_closed in closed:
                current().deliver(window_closed, sender)
            raise
        if error is None and window.key.frequency is not None:
            return result(IN_BACKGROUND)  # its part is durable; others have theirs
        return result(SENT) if error is None else failure(FAILED, error, sender)


def _place_of(window: Window) -> str | tuple[str, str]:
    """Return what a block finds a window by."""
    key, feed = window.key.unique_aggregator_key, window.key.partition
    return key if feed is None else (key, feed)
