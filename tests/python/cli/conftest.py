"""The command line as a user has it: a process of its own, against a real monitor."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# What a user's environment may hold for the sinks; tests set what they are about.
KEY = "canary-7f3a9c51e2"
VARIABLES = (
    "ROBOFLOW_API_KEY",
    "API_KEY",
    "API_BASE_URL",
    "OFFLINE_MODE",
    "SECURE_GATEWAY",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "HTTP_PROXY",
    "http_proxy",
)
TIMEOUT = 180


def environment(**variables):
    inherited = {
        name: value for name, value in os.environ.items() if name not in VARIABLES
    }
    return {**inherited, **variables}


@pytest.fixture
def peakhold():
    """Run a command to its end."""

    def run(*arguments, stdin=b"", **variables):
        return subprocess.run(
            [sys.executable, "-m", "peakhold.cli", *map(str, arguments)],
            check=False,
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT,
            env=environment(**variables),
        )

    return run


@pytest.fixture
def python():
    """Run Python code that sets a stage and then calls the command line."""

    def run(code, **variables):
        return subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            capture_output=True,
            timeout=TIMEOUT,
            env=environment(**variables),
        )

    return run


class Running:
    """A command that is running; its output is read as it comes."""

    def __init__(self, arguments, variables):
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
        )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)

    def line_with(self, text):
        """Return the next line that has a text in it."""
        while True:
            line = self._lines.get(timeout=TIMEOUT)
            if text in line:
                return line.strip()

    def end(self, number=signal.SIGINT):
        """Send a signal; return exit code and standard error."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        self.process.wait(TIMEOUT)  # what it says there fits the pipe
        error = self.process.stderr.read()
        self._reader.join(TIMEOUT)
        return self.process.returncode, error

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        if not self.process.stdin.closed:
            self.process.stdin.close()
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()


@pytest.fixture
def start():
    """Start a command and go on."""
    running = []

    def run(*arguments, **variables):
        running.append(Running(["-m", "peakhold.cli", *arguments], variables))
        return running[-1]

    yield run
    for command in running:
        command.close()


@pytest.fixture
def monitor():
    """Run a real monitor in this process."""
    from peakhold.monitor.server import MonitorServer

    with MonitorServer() as server:
        yield server


@pytest.fixture
def refusing_api():
    """Run an API that names a workspace and then answers every POST with a status."""
    servers = []

    def serve(status, lookup=200):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(lookup, {"workspace": "local"} if lookup == 200 else {})

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(status, {"error": "no such thing"})

            def answer(self, status, body):
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def api_key():
    """The key of the processes that leave something in the outbox."""
    return KEY


SINK = """
import os
from peakhold import ModelMonitoringInferenceAggregatorBlockV1
block = ModelMonitoringInferenceAggregatorBlockV1()
for name in {names!r}:
    block.run(
        fire_and_forget=True,
        predictions={{
            "inference_id": name,
            "prediction_type": "classification",
            "predictions": [{{"class": name, "confidence": 0.5}}],
        }},
        frequency=3600,
        unique_aggregator_key=name,
        model_id="m/1",
    )
{then}
"""


@pytest.fixture
def leave(python):
    """Have a process with a sink observe a window per name, and end.

    Unless told otherwise it ends in order, so that their reports are sealed; the
    address it sends to is `API_BASE_URL`.
    """

    def run(*names, then="", **variables):
        defaults = {"ROBOFLOW_API_KEY": KEY, "PEAKHOLD_EXIT_SECONDS": "0.5"}
        code = SINK.format(names=names, then=then)
        return python(code, **{**defaults, **variables})

    return run


SEAL = """
from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current
REGISTRY.flush_all()
current().flush(1)
"""
STAY = "print('ready', flush=True); input()"


@pytest.fixture
def stay():
    """Start a process that observes a window per name, then seals them, and stays.

    It delivers what it has sealed, unless ``seal`` is code that does something else.
    """
    running = []

    def run(*names, seal=True, **variables):
        seals = SEAL if seal is True else seal or ""
        code = SINK.format(names=names, then=f"{seals}\n{STAY}")
        variables = {"ROBOFLOW_API_KEY": KEY, **variables}
        running.append(Running(["-c", code], variables))
        running[-1].line_with("ready")

    yield run
    for process in running:
        process.close()


@pytest.fixture
def troubled(leave, refusing_api, state_directory, tmp_path_factory):
    """Leave records in each state; returns the address of the one that is pending."""
    url = "http://127.0.0.1:9"
    # Made once: what processes that are dead have left can be copied.
    template = tmp_path_factory.getbasetemp() / "troubled"
    if not template.exists():
        leave("waits", API_BASE_URL=url, OFFLINE_MODE="True")
        for name, status in (("refused", 422), ("unpaid", 402)):
            leave(name, API_BASE_URL=refusing_api(status))
        shutil.copytree(state_directory, template)
    shutil.copytree(template, state_directory, dirs_exist_ok=True)
    return url


@pytest.fixture
def boxes(tmp_path):
    """Write a recording of boxes: frames of (class, confidence) pairs."""

    def write(*frames, name="boxes.jsonl", model=None):
        lines = [
            {
                "image": f"image-{number}",
                **({"model": model} if model else {}),
                "detections": [
                    {"class": name, "confidence": confidence, "xyxy": [0, 1, 20, 30]}
                    for name, confidence in frame
                ],
            }
            for number, frame in enumerate(frames)
        ]
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


@pytest.fixture
def told():
    """Assert that a command ended by one line on standard error with exit code 2."""

    def check(ended, *parts):
        error = ended.stderr.decode()
        assert ended.returncode == 2, error
        assert error.endswith("\n")
        assert error.count("\n") == 1, error
        assert error.startswith("peakhold")
        for part in parts:
            assert part in error
        assert b"Traceback" not in ended.stdout

    return check


@pytest.fixture
def shared_data():
    """Find the folder with real model output."""
    root = Path(__file__).resolve().parents[3]
    shared = Path(os.environ.get("PEAKHOLD_SHARED") or root.parent / "shared")
    folder = shared / "data"
    if not folder.is_dir():
        pytest.skip(f"no real model output in {folder}; PEAKHOLD_SHARED names another")
    return folder
