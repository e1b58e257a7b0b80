"""Keys leave text in whatever form they are in; other text stays."""

from __future__ import annotations

import json
import logging
from urllib.parse import quote, quote_plus

import pytest

from peakhold.roboflow.redaction import guard_logs, in_flight, redact, redact_foreign

QUOTED = quote("https://api/?api_key=" + quote("a&b/c d", safe="") + "&nocache=true")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET /?api_key=abc&nocache=true HTTP", "GET /?api_key=***&nocache=true HTTP"),
        ("GET /?api_key=abc", "GET /?api_key=***"),
        ("url '/?api_key=a%26b'", "url '/?api_key=***'"),
        (
            f"/proxy?url={QUOTED}",
            "/proxy?url=https%3A//api/%3Fapi_key%3D***%26nocache%3Dtrue",
        ),
        (
            f"/proxy?url={quote(QUOTED)}",
            "/proxy?url=https%253A//api/%253Fapi_key%253D***%2526nocache%253Dtrue",
        ),
        ("http://user:pass@proxy:1/x", "http://***@proxy:1/x"),
        ("nothing here: a@b, api key, %26", "nothing here: a@b, api key, %26"),
    ],
)
def test_keys_in_urls_are_found_without_knowing_them(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    "encode",
    [
        str,
        lambda key: quote(key, safe=""),
        lambda key: quote(quote(key, safe=""), safe=""),
        lambda key: quote(key, safe="").lower(),
        quote_plus,
        lambda key: json.dumps(key)[1:-1],
        lambda key: repr(key)[1:-1],
    ],
)
def test_a_known_key_is_found_in_every_form(canary, encode):
    text = f"the key {encode(canary)} is wrong"

    assert redact(text, canary) == "the key *** is wrong"
    assert redact(text) == text  # without knowing the key, nothing tells it is one


def test_words_of_a_server_with_part_of_the_key_are_dropped_whole(canary):
    assert redact_foreign(f"no key like {canary[:-3]}...", canary) == ""
    assert redact_foreign("no such key", canary) == "no such key"
    assert redact_foreign(f"unknown: {canary}", canary) == "unknown: ***"


def test_urllib3_logs_of_a_request_in_flight_are_clean(canary, caplog):
    guard_logs()
    guard_logs()  # installed once, however often it is asked for
    logger = logging.getLogger("urllib3.connectionpool")
    assert len([f for f in logger.filters if "peakhold" in type(f).__module__]) == 1
    caplog.set_level(logging.DEBUG)

    with in_flight(canary):
        logger.debug("echo %s of %d", canary, 1)
        try:
            raise RuntimeError(canary)  # noqa: TRY301
        except RuntimeError:
            logger.warning("failed", exc_info=True)
    logger.debug("echo %s of %d", canary, 1)  # control: not in flight, not in a URL

    assert [record.getMessage() for record in caplog.records] == [
        "echo *** of 1",
        "failed",
        f"echo {canary} of 1",
    ]
    trace = caplog.records[1]
    assert trace.exc_info is None
    assert "RuntimeError: ***" in trace.exc_text
    assert canary not in trace.exc_text


def test_records_without_a_key_pass_unchanged(caplog):
    guard_logs()
    caplog.set_level(logging.DEBUG)

    logging.getLogger("urllib3.connectionpool").debug("Starting %s:%d", "host", 80)

    assert caplog.records[0].args == ("host", 80)
