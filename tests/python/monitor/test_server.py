"""Starting and stopping, in a thread and as a program, and that no key leaks."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import warnings
from urllib.parse import urlsplit

import pytest

from peakhold.errors import PeakholdError
from peakhold.monitor import MonitorError, MonitorServer, serve

CANARY = "canary-7f3a9c51-key"


def test_port_0_gives_a_real_address_that_answers_at_once(make_api):
    with MonitorServer() as monitor:
        address = urlsplit(monitor.url)
        assert (address.scheme, address.hostname) == ("http", "127.0.0.1")
        assert address.port > 0
        assert monitor.dashboard_url == f"{monitor.url}/dashboard"
        assert make_api(monitor.url).send("GET", "/health").status == 200


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1", "::"])
def test_the_address_is_one_that_can_be_connected_to(make_api, host):
    if ":" in host:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    with MonitorServer(host=host) as monitor:
        assert make_api(monitor.url).send("GET", "/health").status == 200


def test_a_stopped_monitor_has_let_go_of_everything(make_api):
    before = threading.active_count()
    with MonitorServer() as monitor:
        url = monitor.url
        assert threading.active_count() > before
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        make_api(url).send("GET", "/health")
    for attribute in ("url", "dashboard_url", "store"):
        with pytest.raises(MonitorError, match="not running"):
            getattr(monitor, attribute)
    monitor.stop()


def test_a_monitor_can_be_started_again(make_api):
    monitor = MonitorServer()
    for _ in range(2):
        monitor.start()
        with pytest.raises(MonitorError, match="running already"):
            monitor.start()
        assert make_api(monitor.url).send("GET", "/health").status == 200
        monitor.stop()


def test_stopping_is_quiet_with_connections_open(caplog):
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with MonitorServer() as monitor:
            address = urlsplit(monitor.url)
            idle = socket.create_connection((address.hostname, address.port), 20)
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(4_096).startswith(b"HTTP/1.1 200 ")
            half = socket.create_connection((address.hostname, address.port), 20)
            half.sendall(b"GET /health HT")
        idle.close()
        half.close()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_port_in_use_is_an_error_with_a_remedy():
    with MonitorServer() as monitor:
        port = urlsplit(monitor.url).port
        with pytest.raises(MonitorError, match=rf"port {port} .*; port 0 has"):
            MonitorServer(port=port).start()


@pytest.mark.parametrize("host", ["no host", "host\x00", "x" * 300, "256.0.0.1"])
def test_a_host_that_is_none_is_an_error(host):
    with pytest.raises(MonitorError, match="cannot listen on"):
        MonitorServer(host=host).start()


@pytest.mark.parametrize("port", [-1, 65_536, 70_000])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValueError, match="65535"):
        MonitorServer(port=port)


@pytest.mark.parametrize("workspace", ["", "a/b", "line\nbreak"])
def test_a_workspace_that_cannot_be_in_an_address_is_refused(workspace):
    with pytest.raises(ValueError, match="workspace"):
        MonitorServer(workspace=workspace)


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_its_extra_it_imports_and_says_what_to_install(missing):
    program = f"""
import sys
sys.modules[{missing!r}] = None
import peakhold.monitor
from peakhold.errors import PeakholdError
try:
    peakhold.monitor.MonitorServer()
except PeakholdError as error:
    assert 'pip install "peakhold[monitor]"' in str(error), error
    assert {missing!r} in str(error), error
else:
    raise SystemExit("constructed")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_importing_the_monitor_loads_no_server():
    program = """
import sys
import peakhold.monitor
assert not {"starlette", "uvicorn", "anyio", "asyncio"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


SERVE = """
import signal, sys
from peakhold.monitor import serve
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
serve(data=sys.argv[1], on_ready=lambda server: print(server.url, flush=True))
assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
print("stopped", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_stops_cleanly_on_a_signal(number, make_api, data_file, report, row):
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVE, str(data_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            api = make_api(child.stdout.readline().strip(), key=CANARY)
            assert api.report(report(row())).json["stored"]
            child.send_signal(number)
            out, err = child.communicate(timeout=20)
        finally:
            child.kill()
    assert (child.returncode, out, err) == (0, "stopped\n", "")
    with MonitorServer(data=data_file) as monitor:
        assert len(monitor.store.requests("report")) == 1


def test_serve_belongs_on_the_main_thread():
    caught = []

    def call():
        try:
            serve()
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(20)
    assert len(caught) == 1


def test_errors_share_the_root():
    assert issubclass(MonitorError, PeakholdError)


def test_the_api_key_is_nowhere(
    tmp_path, data_file, make_api, report, metadata, row, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("uvicorn.error").setLevel(1)
    with MonitorServer(data=data_file) as monitor:
        api = make_api(monitor.url, key=CANARY)
        answers = [
            api.send("GET", f"/?api_key={CANARY}&nocache=true"),
            api.report(report(row()), Idempotency_Key="k"),
            api.report(report(row(confidence=None))),
            api.report(b"not json"),
            api.report(b"x" * 1_100_000),
            api.metadata(metadata((["i"], "f", "v"))),
            api.send("GET", f"/local/inference-stats?api_key={CANARY}&startTime=x"),
            api.send("GET", f"/other/inference-stats?api_key={CANARY}"),
            api.send("GET", f"/local/inference-stats/?api_key={CANARY}"),
            api.send("GET", f"/nothing?api_key={CANARY}"),
            api.send("PUT", f"/local/inference-stats?api_key={CANARY}"),
            api.send("GET", f"/dashboard?api_key={CANARY}&live=1"),
        ]
        files = b"".join(path.read_bytes() for path in tmp_path.rglob("*.*"))
        assert CANARY not in repr(vars(monitor.store))
    assert {answer.status for answer in answers} == {200, 400, 404, 405, 413}
    for answer in answers:
        assert CANARY.encode() not in answer.body
        assert CANARY not in str(answer.headers)
    for path in tmp_path.rglob("*.*"):
        files += path.read_bytes()
    assert b"camera-7" in files  # control: a report's content is in them
    assert CANARY.encode() not in files
    output = capfd.readouterr()
    assert CANARY not in caplog.text + output.out + output.err


@pytest.mark.parametrize("name", ["peakhold-monitor-writer", "peakhold-monitor"])
def test_without_threads_it_says_so_and_lets_go_of_the_port(monkeypatch, name):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        with pytest.raises(MonitorError, match=r"no thread could .*ulimit"):
            MonitorServer(port=port).start()
    with MonitorServer(port=port):  # the control: nothing of it was left
        pass
