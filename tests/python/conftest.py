"""Factories and stand-ins that every area of the test suite shares."""

from __future__ import annotations

import signal
import uuid
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest
import stand_ins

from peakhold.delivery import Sender
from peakhold.outbox import StateDirectory
from peakhold.testing import Clock, RecordingClient

if TYPE_CHECKING:
    import supervision as sv

# Whoever starts the tests in the background of a shell has them ignore Ctrl-C, and with
# them the programs they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def state(tmp_path):
    """Another one, that only the test's own process uses."""
    directory = StateDirectory(tmp_path / "state")
    yield directory
    directory.release()


@pytest.fixture
def api_key():
    return f"canary{uuid.uuid4().hex}"


@pytest.fixture
def cache():
    return stand_ins.DictCache()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client():
    return RecordingClient()


@pytest.fixture
def sender(client, api_key, cache):
    """Sends with a host's client."""
    return Sender(client, api_key, cache, injected=True)


class MakeDetections(Protocol):
    """The signature of the ``make_detections`` fixture."""

    def __call__(
        self,
        class_name: Any = None,
        confidence: Any = None,
        inference_id: Any = None,
        prediction_type: Any = None,
        *,
        count: int | None = None,
        data: Any = None,
    ) -> sv.Detections:
        """Build detections, see ``make_detections``."""


def _import_supervision() -> Any:
    # supervision warns on import where OpenCV is absent, which the suite's
    # `filterwarnings = error` would turn into a failure of whichever test is first.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import supervision as sv

    return sv


def _column(values: Any, dtype: Any = None) -> Any:
    return np.array(values, dtype=dtype) if isinstance(values, list) else values


def build_detections(
    class_name: Any = None,
    confidence: Any = None,
    inference_id: Any = None,
    prediction_type: Any = None,
    *,
    count: int | None = None,
    data: Any = None,
) -> sv.Detections:
    """Build ``sv.Detections`` from plain lists.

    Lists become NumPy columns of the type a Roboflow model produces (names and ids
    fixed-width text, confidences float32); arrays are used as they are. One string
    for `inference_id` or `prediction_type` is repeated for every row; None leaves
    the column out. `data` entries are set as given, lists included. Columns go in
    after construction, past supervision's validation, as user code can put them.

    Args:
        class_name: Class names, shape `(n,)`.
        confidence: Confidences, shape `(n,)`, or None.
        inference_id: Inference ids, shape `(n,)`, or one for all rows.
        prediction_type: Prediction types, shape `(n,)`, or one for all rows.
        count: Number of boxes, where it is not the length of the first column given.
        data: Further columns of `detections.data`, or what replaces it if not a dict.
    """
    sv = _import_supervision()
    columns = {
        "class_name": _column(class_name),
        "inference_id": _column(inference_id),
        "prediction_type": _column(prediction_type),
    }
    confidence = _column(confidence, np.float32)
    if count is None:
        extra = data.values() if isinstance(data, dict) else ()
        given = (*columns.values(), confidence, *extra)
        sized = (c for c in given if hasattr(c, "__len__") and not isinstance(c, str))
        count = len(next(sized, ()))
    for name in ("inference_id", "prediction_type"):
        if isinstance(columns[name], str):
            columns[name] = np.array([columns[name]] * count, dtype=np.str_)
    detections: sv.Detections = sv.Detections(
        xyxy=np.zeros((count, 4), dtype=np.float32)
    )
    detections.confidence = confidence
    detections.data = {
        key: value for key, value in columns.items() if value is not None
    }
    if isinstance(data, dict):
        detections.data.update(data)
    elif data is not None:
        detections.data = data
    return detections


@pytest.fixture(scope="session")
def make_detections() -> MakeDetections:
    """``sv.Detections`` from plain lists, see ``build_detections``."""
    _import_supervision()
    return build_detections
