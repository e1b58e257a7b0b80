"""`peakhold doctor`: each line with its status, its remedy, and never the key."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

KEY = "canary-7f3a9c51e2"
PATTERNS = "ModelMonitoringInferenceAggregator,RoboflowCustomMetadata"
IN_PLACE = {
    "WORKFLOWS_PLUGINS": "peakhold.workflows",
    "WORKFLOW_DISABLED_BLOCK_PATTERNS": PATTERNS,
}
UNSET = dict.fromkeys(
    [*IN_PLACE, "WORKFLOW_DISABLED_BLOCK_TYPES", "PEAKHOLD_IN_PLACE"], ""
)
OK = {
    "extension": "ok",
    "numpy": "ok",
    "supervision": "ok",
    "host": "ok",
    "plugin": "ok",
    "in place": "ok",
    "outbox": "ok",
    "api key": "ok",
    "endpoint": "ok",
    "clock": "ok",
    "workspace": "ok",
}


class Examined:
    """What one run of the doctor said."""

    def __init__(self, ended):
        self.code = ended.returncode
        self.text = ended.stdout.decode()
        assert KEY.encode() not in ended.stdout + ended.stderr
        assert ended.stderr == b""
        self.lines = {}
        for line in self.text.splitlines():
            status, rest = line[:4].strip(), line[6:]
            check = rest[:11].strip()
            assert status in {"ok", "warn", "fail"}
            assert check not in self.lines
            self.lines[check] = (status, rest[13:])
            assert (status == "ok") == (" -> " not in line)
        assert self.code == int("fail" in self.statuses.values())

    @property
    def statuses(self):
        return {check: status for check, (status, _) in self.lines.items()}

    def found(self, check, status, *parts):
        assert self.lines[check][0] == status, self.text
        for part in parts:
            assert part in self.lines[check][1]


@pytest.fixture
def install(tmp_path):
    """Install distributions and packages that must not be imported."""

    def put(name, version, *files):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        for file in files:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("raise SystemExit('a host was imported')")

    return put


@pytest.fixture
def inference(install):
    install("inference_core", "1.8.3", "inference/__init__.py", "inference/core/env.py")


@pytest.fixture
def examine(peakhold, tmp_path):
    def run(**variables):
        variables = {**UNSET, "PYTHONPATH": str(tmp_path), **variables}
        return Examined(peakhold("doctor", **variables))

    return run


@pytest.fixture
def healthy(monitor):
    """The variables of an environment without a fault."""
    return {"API_BASE_URL": monitor.url, "ROBOFLOW_API_KEY": KEY, **IN_PLACE}


@contextmanager
def closed_port():
    """An address of this machine at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def api():
    """Run an API with a clock of its own; its paths are recorded."""
    servers = []

    def serve(ahead):
        class Handler(BaseHTTPRequestHandler):
            paths: list[str] = []  # noqa: RUF012 - one class per server

            def do_GET(self):
                self.paths.append(self.path)
                body = b'{"workspace": "local"}'
                self.send_response_only(200)
                if ahead is not None:
                    self.send_header("Date", formatdate(time.time() + ahead))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}", Handler.paths

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_sound_environment_is_ok_in_every_line(inference, examine, healthy):
    examined = examine(**healthy)

    assert examined.statuses == OK
    assert examined.code == 0
    examined.found("host", "ok", "inference-core 1.8.3")
    examined.found("endpoint", "ok", healthy["API_BASE_URL"])
    examined.found("workspace", "ok", "local")
    examined.found("extension", "ok", "release build")


def test_without_host_key_and_network_each_line_says_so(examine):
    with closed_port() as url:
        examined = examine(API_BASE_URL=url)

    assert examined.code == 1
    assert examined.statuses == {
        "extension": "ok",
        "numpy": "ok",
        "supervision": "ok",
        "host": "warn",
        "plugin": "warn",
        "outbox": "ok",
        "api key": "fail",
        "endpoint": "fail",
        "clock": "warn",
        "workspace": "warn",
    }
    examined.found("host", "warn", "no host", "pip install inference")
    examined.found("api key", "fail", "export ROBOFLOW_API_KEY=")
    examined.found("endpoint", "fail", url, "Check the network")


def test_no_extra_is_needed(python, healthy):
    code = (
        "import sys; sys.modules.update(rich=None, starlette=None, uvicorn=None); "
        "from peakhold.cli import main; sys.exit(main(['doctor']))"
    )

    assert Examined(python(code, **UNSET | healthy)).statuses["workspace"] == "ok"


def test_no_host_alone_is_no_failure(examine, healthy):
    assert examine(**healthy).code == 0


def test_a_plugin_that_is_not_named_fails(inference, examine, healthy):
    healthy |= {"WORKFLOWS_PLUGINS": "mine"}

    examined = examine(**healthy)

    export = "export WORKFLOWS_PLUGINS=mine,peakhold.workflows"
    examined.found("plugin", "fail", "workflows with them fail", export)
    examined.found("in place", "ok")


def test_of_a_host_that_reads_no_variable_the_call_is_told(install, examine, healthy):
    install("roboflow_workflows", "0.2.13", "roboflow_workflows/__init__.py")

    examined = examine(**healthy)

    assert examined.code == 0
    examined.found("host", "ok", "roboflow-workflows 0.2.13")
    examined.found("plugin", "warn", "peakhold.workflows.configure()")


def test_a_key_that_the_endpoint_does_not_know_fails(
    inference, examine, healthy, refusing_api
):
    healthy |= {"API_BASE_URL": refusing_api(200, lookup=401)}

    examined = examine(**healthy)

    assert examined.statuses == {**OK, "workspace": "fail"}
    examined.found("workspace", "fail", "HTTP 401", "-> Check the key")


def test_a_proxy_on_the_way_is_named(examine, healthy, refusing_api):
    address = refusing_api(200, lookup=403).removeprefix("http://")
    healthy |= {
        "API_BASE_URL": "http://api.example",
        "HTTP_PROXY": f"http://someone:s3cret@{address}",
    }

    examined = examine(**healthy)

    through = f"through the proxy {address}"
    examined.found("endpoint", "ok", through)
    examined.found("workspace", "fail", "HTTP 403", through)
    assert "s3cret" not in examined.text
    with closed_port() as nobody:
        address = nobody.removeprefix("http://")
        healthy["HTTP_PROXY"] = f"http://someone:s3cret@{address}"
        examined = examine(**healthy)
    examined.found("endpoint", "fail", f"through the proxy {address}")
    assert "s3cret" not in examined.text


def test_this_machine_is_examined_without_a_proxy(examine, healthy):
    with closed_port() as nobody:
        examined = examine(**healthy, HTTP_PROXY=nobody, http_proxy=nobody)

    assert examined.statuses["workspace"] == "ok"


def test_an_endpoint_in_trouble_fails(inference, examine, healthy, refusing_api):
    healthy |= {"API_BASE_URL": refusing_api(200, lookup=500)}

    examine(**healthy).found("workspace", "fail", "HTTP 500", "try again later")


def test_an_endpoint_that_never_answers_fails_in_time(inference, examine, healthy):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        healthy |= {
            "API_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "ROBOFLOW_API_REQUEST_TIMEOUT": "0.2",
        }
        examined = examine(**healthy)

    examined.found("endpoint", "fail", "within 0.2 s", "ROBOFLOW_API_REQUEST_TIMEOUT")


@pytest.mark.parametrize(
    ("ahead", "status", "words"),
    [
        (0, "ok", "within"),
        (20, "ok", "within"),
        (3600, "warn", "s behind"),
        (-86_400, "warn", "s ahead of"),
        (None, "warn", "did not tell"),
    ],
)
def test_the_clock_is_compared_with_the_endpoints(
    inference, examine, healthy, api, ahead, status, words
):
    healthy |= {"API_BASE_URL": api(ahead)[0]}

    examine(**healthy).found("clock", status, words)


def test_only_the_request_for_the_workspace_has_the_key(examine, healthy, api):
    url, paths = api(0)

    examine(**{**healthy, "API_BASE_URL": url})

    assert paths == ["/", f"/?api_key={KEY}&nocache=true"]


def test_offline_nothing_is_requested(examine, healthy, api):
    url, paths = api(0)

    examined = examine(**{**healthy, "API_BASE_URL": url, "OFFLINE_MODE": "True"})

    assert (examined.code, paths) == (0, [])
    examined.found("endpoint", "warn", "OFFLINE_MODE")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_BASE_URL", f"https://user:{KEY}@host"),
        ("ROBOFLOW_API_EXTRA_HEADERS", KEY),
        ("ROBOFLOW_API_REQUEST_TIMEOUT", "soon"),
        ("SECURE_GATEWAY", "http://["),
    ],
)
def test_a_variable_that_cannot_be_used_fails(examine, healthy, name, value):
    examined = examine(**{**healthy, name: value})

    examined.found("settings", "fail", name)
    assert examined.code == 1


def test_the_second_name_of_the_key_is_told(examine, healthy):
    healthy["API_KEY"] = healthy.pop("ROBOFLOW_API_KEY")

    examine(**healthy).found("api key", "ok", "API_KEY has one")


def test_json_has_the_same_findings(inference, examine, healthy, peakhold, tmp_path):
    variables = {**UNSET, **healthy, "PYTHONPATH": str(tmp_path), "API_BASE_URL": "x"}
    ended = peakhold("doctor", "--json", **variables)
    report = json.loads(ended.stdout)
    examined = examine(**variables)

    statuses = {check["check"]: check["status"] for check in report["checks"]}
    assert statuses == examined.statuses
    assert report["healthy"] is False
    assert ended.returncode == 1
    settings = next(check for check in report["checks"] if check["status"] == "fail")
    assert settings["remedy"]
