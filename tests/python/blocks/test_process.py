"""The ends and the forks of processes, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from stand_ins import results_of

from peakhold.testing import Answer, BlackHole

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PRELUDE = """
import atexit, os, sys, time

ended_at = None
# Registered first, so it runs last: how long the exit took.
atexit.register(
    lambda: ended_at and print(time.monotonic() - ended_at, file=sys.stderr)
)

from peakhold import (
    ModelMonitoringInferenceAggregatorBlockV1,
    RoboflowCustomMetadataBlockV1,
)

def observe(block, class_name, frequency=60, fire_and_forget=True):
    return block.run(
        fire_and_forget=fire_and_forget,
        predictions={
            "inference_id": "id",
            "prediction_type": "classification",
            "predictions": [{"class": class_name, "confidence": 0.5}],
        },
        frequency=frequency,
        unique_aggregator_key="k",
        model_id="m/1",
    )

def register(block, inference_id):
    return block.run(
        fire_and_forget=True,
        field_name="f",
        field_value="v",
        predictions={"inference_id": inference_id},
    )

aggregator = ModelMonitoringInferenceAggregatorBlockV1(api_key="canary-key")
metadata = RoboflowCustomMetadataBlockV1(api_key="canary-key")
"""


class Child:
    """A Python process that runs a script after the prelude."""

    def __init__(self, script, url, **environment):
        source = PRELUDE + textwrap.dedent(script)
        kept = {
            name: value
            for name, value in os.environ.items()
            if "proxy" not in name.lower()
        }
        self.process = subprocess.Popen(
            # Python 3.12 warns of a fork beside threads, which is what is tested.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", source],
            env={
                **kept,
                "API_BASE_URL": url,
                "PEAKHOLD_SYSTEM_INFO": "off",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_done(self):
        """Wait for the script's `done`."""
        line = self.process.stdout.readline()
        if line != "done\n":
            pytest.fail(f"{line!r}: {self.process.communicate()[1]}")

    def ended(self, timeout=30):
        """Wait for the end; returns exit code and standard error."""
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, errors


@pytest.fixture
def start():
    """Starts children, and ends those that a failing test left."""
    children = []

    def start_child(script, url, **environment):
        children.append(Child(script, url, **environment))
        return children[-1]

    yield start_child
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
            child.process.communicate()


@pytest.fixture
def finished(start):
    """Runs a script to its good end; returns standard error."""

    def finish(script, url, **environment):
        code, errors = start(script, url, **environment).ended()
        assert code == 0, errors
        return errors

    return finish


def reported(api):
    return [
        [result["class_name"] for result in results_of(request)]
        for request in api.accepted(kind="report")
    ]


def test_the_last_window_and_open_metadata_arrive_when_the_process_exits(api, finished):
    errors = finished(
        """
        for index in range(50):
            observe(aggregator, f"c{index % 3}")
            register(metadata, f"id{index}")
        """,
        api.url,
    )
    assert reported(api) == [["c0", "c1", "c2"]]
    ids = [i for entry in api.entries() for i in entry["inference_ids"]]
    assert ids == [f"id{index}" for index in range(50)]
    assert errors == ""


def test_the_control_a_killed_process_sends_nothing(api, start):
    child = start(
        """
        observe(aggregator, "lost")
        print("done", flush=True)
        time.sleep(30)
        """,
        api.url,
    )
    child.until_done()
    child.process.kill()
    child.ended()
    assert reported(api) == []


def test_an_exception_that_ends_the_process_does_not_lose_the_window(api, start):
    code, errors = start("observe(aggregator, 'a'); 1 / 0", api.url).ended()
    assert code == 1
    assert "ZeroDivisionError" in errors
    assert reported(api) == [["a"]]


def test_exit_tries_a_destination_in_backoff_once_more(api, finished):
    api.failures = [Answer(503)]
    finished(
        "observe(aggregator, 'a'); register(metadata, 'i'); time.sleep(0.2)", api.url
    )
    assert reported(api) == [["a"]]


@pytest.mark.parametrize("in_flight", [True, False])
def test_a_black_hole_does_not_hold_up_the_exit(api, in_flight, start):
    api.always = BlackHole()
    child = start(
        f"""
        observe(aggregator, "a")
        register(metadata, "i")
        time.sleep({0.5 if in_flight else 0})
        ended_at = time.monotonic()
        """,
        api.url,
    )
    code, errors = child.ended()
    assert code == 0
    *errors, seconds = errors.splitlines()
    assert 1.9 < float(seconds) <= 2.2
    (errors,) = errors
    assert "Exiting with" in errors
    assert "not delivered" in errors
    assert "canary-key" not in errors


@pytest.mark.parametrize("healthy", [True, False])
def test_a_black_hole_does_not_keep_other_destinations_from_the_exit(
    api, start, healthy
):
    api.always = None if healthy else BlackHole()
    script = """
        class Fine:
            endpoint = "http://fine"
            def get_roboflow_workspace(self, api_key):
                return "w"
            def send_inference_results_to_model_monitoring(self, *args):
                print("done", flush=True)
            def get_device_id(self):
                return None
            get_server_version = get_device_id
            def get_system_info(self):
                return {}

        observe(aggregator, "a")
        fine = ModelMonitoringInferenceAggregatorBlockV1(
            api_key="k", platform_client=Fine()
        )
        observe(fine, "b")
        """
    child = start(script, api.url)
    child.until_done()
    code, errors = child.ended()
    assert code == 0, errors
    if healthy:
        assert errors == ""
        assert reported(api) == [["a"]]
    else:  # the control: the other one did hang
        assert "Exiting with 1 reports" in errors


def test_offline_the_exit_is_immediate_and_counts_what_is_left(api, start):
    child = start(
        """
        observe(aggregator, "a")
        register(metadata, "i")
        ended_at = time.monotonic()
        """,
        api.url,
        OFFLINE_MODE="True",
    )
    code, errors = child.ended()
    assert code == 0
    assert float(errors.splitlines()[-1]) < 0.5
    assert "Exiting with 2 reports and metadata requests not delivered" in errors
    assert api.requests == []


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
def test_no_signal_handler_is_installed(api, start):
    child = start(
        """
        import signal
        observe(aggregator, "a")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        print("done", flush=True)
        time.sleep(30)
        """,
        api.url,
    )
    child.until_done()
    child.process.send_signal(signal.SIGTERM)
    assert child.ended()[0] == -signal.SIGTERM


@needs_fork
def test_a_forked_child_does_not_send_what_is_its_parent_s(api, finished):
    errors = finished(
        """
        observe(aggregator, "the parent's")
        register(metadata, "the parent's")
        child = os.fork()
        if child == 0:
            observe(aggregator, "the child's")
            observe(aggregator, "the child's, too")
            register(metadata, "the child's")
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        api.url,
    )
    both = ["the child's", "the child's, too"]
    assert sorted(reported(api)) == [both, ["the parent's"]]
    ids = [i for entry in api.entries() for i in entry["inference_ids"]]
    assert sorted(ids) == ["the child's", "the parent's"]
    assert errors == ""


@needs_fork
def test_a_forked_child_that_runs_nothing_sends_nothing(api, finished):
    finished(
        """
        observe(aggregator, "the parent's")
        child = os.fork()
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
        """,
        api.url,
    )
    assert reported(api) == [["the parent's"]]


@needs_fork
def test_forks_while_threads_observe_and_deliver_never_hang(api, finished):
    finished(
        """
        import threading
        stop = threading.Event()

        def stream():
            number = 0
            while not stop.is_set():
                number += 1
                observe(aggregator, f"c{number % 7}", frequency=1)
                register(metadata, f"{os.getpid()}-{number}")

        threads = [threading.Thread(target=stream) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            child = os.fork()
            if child == 0:
                observe(aggregator, "child")
                register(metadata, "child")
                os._exit(0)
            deadline = time.monotonic() + 10
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                assert time.monotonic() < deadline, "a child hangs"
                time.sleep(0.002)
        stop.set()
        for thread in threads:
            thread.join()
        """,
        api.url,
    )
    # A child that is gone before it reports leaves a window of its own to others; the
    # parent's windows have nothing of it.
    mixed = [report for report in reported(api) if {"child"} < set(report)]
    assert mixed == []


@needs_fork
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_sends_its_last_window(api, tmp_path, method):
    script = tmp_path / "job.py"
    script.write_text(
        PRELUDE
        + textwrap.dedent(
            """
            import multiprocessing

            def job():
                observe(aggregator, "the child's")
                observe(aggregator, "the child's, too")

            if __name__ == "__main__":
                if sys.argv[1] == "fork":
                    observe(aggregator, "the parent's")
                context = multiprocessing.get_context(sys.argv[1])
                child = context.Process(target=job)
                child.start()
                child.join()
                assert child.exitcode == 0
            """
        )
    )
    completed = subprocess.run(
        [sys.executable, script, method],
        env={**os.environ, "API_BASE_URL": api.url, "PEAKHOLD_SYSTEM_INFO": "off"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    expected = [["the child's", "the child's, too"]]
    if method == "fork":
        expected.append(["the parent's"])
    assert reported(api) == expected


def test_constructing_a_block_loads_requests_and_importing_peakhold_does_not(api):
    source = """
        import sys
        import peakhold
        assert "requests" not in sys.modules
        from peakhold import ModelMonitoringInferenceAggregatorBlockV1 as Block
        block = Block(api_key="k")
        before = set(sys.modules)
        assert "requests" in before
        block._sender.cache.set(
            "workflows:steps_cache:roboflow_core/"
            "model_monitoring_inference_aggregator@v1:k:last_report_time",
            "2001-01-01",
        )
        block.run(
            fire_and_forget=False, predictions={}, frequency=1,
            unique_aggregator_key="k", model_id="m/1",
        )
        late = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(sorted(late & {"requests", "urllib3", "http", "ssl", "numpy"}))
    """
    completed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env={**os.environ, "API_BASE_URL": api.url, "PEAKHOLD_SYSTEM_INFO": "off"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert completed.stdout == "[]\n", completed.stderr
    assert len(api.accepted()) == 1
