"""`peakhold flush`: what dead processes left is delivered, or told."""

from __future__ import annotations

import json
import os

import pytest

from peakhold.testing import After, Answer, MisbehavingApi, refuse


@pytest.fixture
def flush(peakhold, api_key):
    def run(url, *arguments, **variables):
        defaults = {"ROBOFLOW_API_KEY": api_key, "API_BASE_URL": url}
        return peakhold("flush", *arguments, **{**defaults, **variables})

    return run


def stored(monitor):
    return monitor.store.overview("local").reports


def test_what_waits_for_the_key_is_delivered(flush, leave, monitor, peakhold):
    leave("a", "b", API_BASE_URL=monitor.url, OFFLINE_MODE="True")
    assert stored(monitor) == 0

    ended = flush(monitor.url)

    assert ended.returncode == 0, ended.stderr
    assert b"2 reports, 0 metadata requests" in ended.stdout
    assert b"Nothing waits any more for this key and address." in ended.stdout
    assert stored(monitor) == 2
    assert b"sealed 2 = delivered 2" in peakhold("status").stdout


def test_the_open_window_of_a_killed_process_is_delivered(flush, leave, monitor):
    leave("a", then="os._exit(9)", API_BASE_URL=monitor.url)

    ended = flush(monitor.url)

    assert ended.returncode == 0, ended.stderr
    assert stored(monitor) == 1


SEAL = """
from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current
REGISTRY.flush_all()
current().committer.commit()
"""


@pytest.mark.parametrize("sealed", [False, True])
def test_parts_of_windows_that_nobody_shares_any_more_are_delivered(
    flush, leave, monitor, peakhold, sealed
):
    then = f"{SEAL if sealed else ''}os._exit(9)"
    for _ in range(2):
        leave("a", then=then, API_BASE_URL=monitor.url, PEAKHOLD_SHARE="host")

    ended = flush(monitor.url)

    assert ended.returncode == 0, ended.stderr
    assert stored(monitor) == 1
    assert b"sealed 2 = delivered 2" in peakhold("status").stdout


def test_a_part_of_a_window_that_is_shared_is_left_to_the_others(
    flush, leave, stay, monitor
):
    variables = {"API_BASE_URL": monitor.url, "PEAKHOLD_SHARE": "host"}
    stay("a", seal=SEAL, **variables)
    leave("a", then=f"{SEAL}os._exit(9)", **variables)

    ended = flush(monitor.url)

    assert ended.returncode == 1
    assert b"Left: 2 pending" in ended.stdout
    assert b"2 belong to running processes" in b" ".join(ended.stdout.split())
    assert stored(monitor) == 0


def test_the_control_who_has_sealed_no_part_is_not_waited_for(
    flush, leave, stay, monitor
):
    variables = {"API_BASE_URL": monitor.url, "PEAKHOLD_SHARE": "host"}
    stay("a", seal=False, **variables)
    leave("a", then=f"{SEAL}os._exit(9)", **variables)

    assert flush(monitor.url).returncode == 0
    assert stored(monitor) == 1


def test_what_is_parked_is_tried_again(flush, leave, monitor, peakhold):
    leave("a", API_BASE_URL=monitor.url, OFFLINE_MODE="True")
    monitor_is_down = {"SECURE_GATEWAY": "http://127.0.0.1:9"}
    assert flush(monitor.url, "--timeout", "0.5", **monitor_is_down).returncode == 1

    assert flush(monitor.url).returncode == 0
    assert stored(monitor) == 1


def test_what_was_told_to_wait_is_tried_now(flush, leave):
    with MisbehavingApi() as api:
        api.failures = [refuse(429, retry_after=600)]
        leave("a", "b", API_BASE_URL=api.url)
        assert len(api.posts()) == 1
        assert flush(api.url).returncode == 0
        assert len(api.accepted()) == 2


def test_what_is_left_is_told_with_the_error(flush, leave, refusing_api, api_key):
    url = refusing_api(402)
    leave("a", API_BASE_URL=url, OFFLINE_MODE="True")

    ended = flush(url, "--timeout", "3")

    text = ended.stdout.decode()
    assert ended.returncode == 1
    assert "Left: 0 pending, 1 parked" in text
    assert "wants payment" in text
    assert api_key not in text + ended.stderr.decode()


def words_of(ended):
    return " ".join(ended.stdout.decode().split())


def test_what_is_left_because_requests_fail_is_told_so(flush, leave):
    with MisbehavingApi() as api:
        api.always = Answer(503)
        leave("a", "b", API_BASE_URL=api.url, OFFLINE_MODE="True")

        ended = flush(api.url, "--timeout", "1")

    assert ended.returncode == 1
    assert "Left: 2 pending, 0 parked" in words_of(ended)
    assert "Cause: requests to it fail." in words_of(ended)
    assert "To help: put that right; `peakhold doctor` tries" in words_of(ended)


def test_what_is_left_for_the_rate_after_an_outage_is_told_so(flush, leave):
    names = [f"w{number}" for number in range(30)]
    with MisbehavingApi() as api:
        leave(*names, API_BASE_URL=api.url, OFFLINE_MODE="True")
        api.failures = [refuse(503)]

        ended = flush(api.url, "--timeout", "3.5", PEAKHOLD_REQUESTS_PER_SECOND="5")

        left = len(names) - len(api.accepted())
        assert 0 < left < 30
        assert ended.returncode == 1
        assert f"Left: {left} pending" in words_of(ended)
        assert "Cause: after an outage at most 5 requests a second" in words_of(ended)
        assert "or a greater PEAKHOLD_REQUESTS_PER_SECOND." in words_of(ended)
        remedy = words_of(ended).partition("--timeout ")[2].split()[0]
        assert flush(api.url, "--timeout", remedy).returncode == 0


def test_what_is_left_because_time_was_short_is_told_with_enough_time(flush, leave):
    names = [f"w{number}" for number in range(20)]
    with MisbehavingApi() as api:
        late = After(0.2, Answer())
        api.faults = lambda request: late if request.method == "POST" else None
        leave(*names, API_BASE_URL=api.url, OFFLINE_MODE="True")

        ended = flush(api.url, "--timeout", "1.5", "--json")

        outcome = json.loads(ended.stdout)
        assert ended.returncode == 1
        assert "1.5 s were too short" in outcome["cause"]
        remedy = outcome["remedy"].partition("--timeout ")[2]
        assert flush(api.url, "--timeout", remedy).returncode == 0


def test_a_dead_record_is_told_and_does_not_wait(flush, leave, refusing_api):
    url = refusing_api(422)
    leave("a", API_BASE_URL=url)

    ended = flush(url)

    assert ended.returncode == 0, ended.stderr
    assert b"Dead: 1, refused for good" in ended.stdout


def test_what_waits_for_another_key_stays(flush, leave, monitor):
    leave("a", API_BASE_URL=monitor.url, OFFLINE_MODE="True")

    ended = flush(monitor.url, ROBOFLOW_API_KEY="another")

    assert ended.returncode == 0, ended.stderr
    assert b"0 reports" in ended.stdout
    assert b"For other keys, addresses or clients: 1" in ended.stdout
    assert stored(monitor) == 0


def test_what_waits_for_another_address_is_not_said_to_be_delivered(flush, leave):
    leave("a", API_BASE_URL="http://127.0.0.1:9", OFFLINE_MODE="True")

    ended = flush("http://127.0.0.2:9")

    assert ended.returncode == 0, ended.stderr
    assert b"Nothing waits any more for this key and address." in ended.stdout
    assert b"For other keys, addresses or clients: 1" in ended.stdout


def test_an_open_window_for_another_key_is_told_and_stays(flush, leave, monitor):
    leave("a", then="os._exit(9)", API_BASE_URL=monitor.url)

    ended = flush(monitor.url, ROBOFLOW_API_KEY="another")

    text = " ".join(ended.stdout.decode().split())
    assert ended.returncode == 0, ended.stderr
    assert "Open windows that dead processes left for other keys" in text
    assert text.endswith("cannot be read: 1.")
    assert stored(monitor) == 0
    assert b"windows" not in flush(monitor.url).stdout  # the control
    assert stored(monitor) == 1


def test_what_belongs_to_a_running_process_is_left_to_it(flush, stay, monitor):
    stay("a", API_BASE_URL=monitor.url, OFFLINE_MODE="True")

    ended = flush(monitor.url, "--json")

    outcome = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert (outcome["left"], outcome["of_running_processes"]) == (1, 1)
    assert stored(monitor) == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ROBOFLOW_API_KEY": ""}, "export ROBOFLOW_API_KEY="),
        ({"OFFLINE_MODE": "True"}, "unset it"),
        ({"PEAKHOLD_DISABLED": "True"}, "unset it"),
        ({"API_BASE_URL": "http://user:canary@host"}, "API_BASE_URL"),
        ({"PEAKHOLD_DURABILITY": "eternal"}, "PEAKHOLD_DURABILITY"),
    ],
)
def test_an_environment_that_forbids_it_is_told(
    flush, told, leave, monitor, variables, words
):
    leave("a", API_BASE_URL=monitor.url, OFFLINE_MODE="True")

    ended = flush(monitor.url, **variables)

    told(ended, words)
    assert b"canary" not in ended.stderr
    assert stored(monitor) == 0


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
def test_a_time_out_is_above_zero(flush, told, seconds):
    told(flush("http://127.0.0.1:9", "--timeout", seconds), "--timeout")


@pytest.mark.skipif(os.name == "nt", reason="locks as POSIX has them")
def test_where_locks_do_not_work_it_says_so_in_one_line(python, leave, api_key):
    leave("a", OFFLINE_MODE="True", API_BASE_URL="http://127.0.0.1:1")
    code = """
import errno, fcntl, logging, os, sys

def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

fcntl.lockf = refuse
logging.disable()  # of what the outbox says of it
from peakhold.cli import main
sys.exit(main(["flush", "--timeout", "1"]))
"""
    ended = python(code, ROBOFLOW_API_KEY=api_key, API_BASE_URL="http://127.0.0.1:1")

    errors = ended.stderr.decode()
    assert (ended.returncode, errors.count("\n")) == (2, 1), errors
    assert "No locks available" in errors
    assert "PEAKHOLD_STATE_DIR" in errors
