"""What a failure means: the HTTP policy table, and how long to wait."""

from __future__ import annotations

import random

import pytest
from stand_ins import StatusError

from peakhold.delivery.policy import Backoff, Verdict, verdict
from peakhold.roboflow.errors import (
    ConnectionFailedError,
    MalformedResponseError,
    RequestTimeoutError,
    TlsFailedError,
)

TABLE = {
    Verdict.RETRY: [None, 200, 302, 408, 425, 429, 500, 502, 503, 504, 599],
    Verdict.PARK: [401, 402, 403, 404, 423],
    Verdict.TOO_LARGE: [413],
    Verdict.REFUSED: [400, 405, 409, 410, 415, 418, 422, 451, 499],
}


@pytest.mark.parametrize(
    ("status", "expected"),
    [(status, judged) for judged, statuses in TABLE.items() for status in statuses],
)
def test_the_status_decides(status, expected):
    assert verdict(StatusError(status)) is expected


def test_every_client_error_has_a_verdict_other_than_a_plain_retry_or_is_passing():
    retried = {s for s in range(400, 500) if verdict(StatusError(s)) is Verdict.RETRY}
    assert retried == {408, 425, 429}


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailedError("x"),
        RequestTimeoutError("x"),
        MalformedResponseError("x", status=200),
        RuntimeError("of an injected client"),
        StatusError("not a number"),
    ],
)
def test_what_may_pass_is_retried(error):
    assert verdict(error) is Verdict.RETRY


def test_a_certificate_needs_a_person():
    assert verdict(TlsFailedError("x")) is Verdict.PARK


def delay(backoff, error=None, judged=Verdict.RETRY):
    backoff.failed(100.0, error or StatusError(503), judged)
    return backoff.not_before - 100.0


def test_delays_are_jittered_between_1_and_60_seconds_and_grow():
    rng = random.Random(3)
    backoff = Backoff(rng.uniform)
    delays = [delay(backoff) for _ in range(500)]
    assert min(delays) >= 1.0
    assert max(delays) == 60.0
    assert len(set(delays)) > 100
    assert delays[0] <= 3.0


def test_success_starts_the_delays_anew():
    backoff = Backoff(lambda low, high: high)
    assert [delay(backoff) for _ in range(5)] == [3.0, 9.0, 27.0, 60.0, 60.0]
    assert backoff.succeeded() == 5
    assert backoff.not_before == 0.0
    assert delay(backoff) == 3.0


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(None, 3.0), (0.0, 3.0), (2.0, 3.0), (40.0, 40.0), (7200.0, 3600.0)],
)
def test_retry_after_is_honoured_up_to_an_hour(retry_after, expected):
    backoff = Backoff(lambda low, high: high)
    assert delay(backoff, StatusError(429, retry_after)) == expected


def test_a_parked_destination_is_probed_every_15_minutes():
    backoff = Backoff(lambda low, high: high)
    error = StatusError(401)
    assert [delay(backoff, error, Verdict.PARK) for _ in range(3)] == [900.0] * 3
