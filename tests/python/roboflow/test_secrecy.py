"""The api key shows nowhere: not in logs at DEBUG, not in anything of an exception."""

from __future__ import annotations

import gc
import io
import json
import logging
import re
import signal
import sys
import threading
import traceback
import types
from urllib.parse import quote, quote_plus

import pytest
import requests
from rich.console import Console
from rich.traceback import Traceback as RichTraceback

from peakhold.blocks import (
    ModelMonitoringInferenceAggregatorBlockV1,
    RoboflowCustomMetadataBlockV1,
)
from peakhold.delivery import Sender
from peakhold.roboflow import RoboflowClient, RoboflowError, Settings
from peakhold.testing import (
    Answer,
    BlackHole,
    Computed,
    CutOff,
    Drip,
    RecordingClient,
    Reset,
    answer_json,
    redirect,
    refusing_port,
)

BODY = b'{"confidence": 0.5}'


def forms_of(key):
    once = quote(key, safe="")
    return {
        key,
        once,
        once.lower(),
        quote(once, safe=""),
        quote(quote(once, safe=""), safe=""),
        quote(key),
        quote_plus(key),
        json.dumps(key)[1:-1],
        repr(key)[1:-1],
    }


def leaks(text, key):
    lower = text.lower()
    return [form for form in forms_of(key) if form.lower() in lower]


class Collector(logging.Handler):
    """Keeps what any handler could see of a record."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.seen = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record):
        self.seen.append(self.format(record))
        self.seen.append(repr(vars(record)))


@pytest.fixture
def logged():
    root = logging.getLogger()
    collector, level = Collector(), root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    yield collector.seen
    root.removeHandler(collector)
    root.setLevel(level)


def everything_of(error):
    """Yield each text that can be got out of an exception."""
    waiting, seen = [error], []
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        waiting += [one.__cause__, one.__context__]
        yield str(one)
        yield repr(one)
        yield repr(one.args)
        yield repr(vars(one))
        yield "".join(traceback.format_exception(one))
    yield from map(repr, reachable_from(error))


def reachable_from(error):
    """Return what an exception keeps alive, apart from the frames of its traceback."""
    apart = (type, types.ModuleType, types.FrameType, types.TracebackType)
    waiting, seen = [error], {}
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, apart):
            continue
        seen[id(one)] = one
        waiting += gc.get_referents(one)
    return list(seen.values())


def locals_of(error):
    """Yield the local variables of all frames in a traceback but the test's own."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals["__name__"] != __name__:
            yield from frame.f_locals.items()


class Call:
    """A call that an error tracker can see the frames of, and no key in its own."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __call__(self):
        self.function(*self.args)

    def rendered(self):
        """Make the call, which fails; return all that trackers make of the failure."""
        try:
            self()
        except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt as well
            plain = traceback.TracebackException.from_exception(
                error, capture_locals=True
            )
            rich = RichTraceback.from_exception(
                type(error), error, error.__traceback__, show_locals=True, width=500
            )
            console = Console(file=io.StringIO(), width=500)
            console.print(rich)
            return type(error), "".join(plain.format()) + console.file.getvalue()


def echo(status):
    """Answer with the request line, which holds the key, in body and headers."""

    def make(request):
        (key,) = request.query.get("api_key", [""])
        words = f"no such key: {key} ({request.target})"
        return answer_json({"error": words}, status, x_echo=request.target)

    return Computed(make)


def broken_header():
    """Make urllib3 log the URL at WARNING, with a traceback."""

    def make(request):
        key = quote(request.query["api_key"][0], safe="")
        return Reset(
            f"HTTP/1.1 500 No\r\nContent-Length: 0\r\nno colon {key}\r\n\r\n".encode()
        )

    return Computed(make)


BEHAVIOURS = {
    "success": answer_json({"workspace": "acme"}),
    **{
        f"status {status}": Answer(status, b"{}")
        for status in (400, 401, 402, 403, 404, 408, 413, 418, 423, 429, 500, 503, 599)
    },
    "echo of the key": echo(401),
    "echo of the key with success": echo(200),
    "broken header": broken_header(),
    "malformed JSON": Answer(200, b"<html>"),
    "redirect": redirect("http://elsewhere.example/?api_key=x"),
    "redirect back": Computed(lambda request: redirect(request.target)),
    "redirect to a host like the key": redirect("http://canary/+key=%C3%A9"),
    "reset": Reset(),
    "reset in the head": Reset(b"HTTP/1.1 2"),
    "not HTTP": Reset(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "cut off": CutOff(),
    "time-out": BlackHole(),
    "drip": Drip(body=b"0123456789", interval=0.1, head_at_once=True),
}

CALLS = {
    "lookup": lambda client, key: client.get_roboflow_workspace(key),
    "report": lambda client, key: client.send_report_body(key, "acme", BODY, "id"),
    "metadata": lambda client, key: client.send_metadata_body(key, "acme", BODY, "id"),
}


def check(client, call, key, logged):
    """Make a call and look for the key; return the error of the call, if any."""
    error = None
    try:
        call(client, key)
    except RoboflowError as caught:
        error = caught
    if error is not None:
        assert error.__cause__ is None
        assert error.__context__ is None
        assert [text for text in everything_of(error) if leaks(text, key)] == []
        shown = [name for name, value in locals_of(error) if leaks(repr(value), key)]
        assert shown == []
    assert [line for line in logged if leaks(line, key)] == []
    assert not leaks(repr(client), key)
    return error


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS.keys())
def test_nothing_shows_the_key(server, make_client, canary, logged, behaviour, call):
    server.otherwise = behaviour
    check(make_client(read_timeout=0.15), call, canary, logged)

    # The key did travel, and urllib3 did log: there was something to find.
    assert server.requests[0].query["api_key"] == [canary]
    assert any("urllib3" in line for line in logged)


@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS.keys())
def test_nothing_shows_the_key_through_a_gateway(
    server, make_client, canary, logged, behaviour
):
    if isinstance(behaviour, Computed):  # these read the key from the query
        inner = behaviour.make
        behaviour = Computed(lambda request: inner(_unwrapped(request)))
    server.otherwise = behaviour
    client = make_client(
        api_base_url="https://api.example",
        secure_gateway=server.url,
        read_timeout=0.15,
    )
    check(client, CALLS["report"], canary, logged)

    assert server.requests[0].path == "/proxy"
    assert any("urllib3" in line for line in logged)


def _unwrapped(request):
    (url,) = request.query["url"]
    return type(request)(
        request.method, url, request.headers, request.body, request.connection
    )


def test_nothing_shows_the_key_through_a_proxy(
    server, make_client, canary, logged, monkeypatch
):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    client = make_client(api_base_url="http://api.example", read_timeout=0.15)
    for behaviour in (Answer(), Answer(401), Reset(), BlackHole()):
        server.script(behaviour)
        check(client, CALLS["report"], canary, logged)

    assert len(server.requests) == 4


def test_nothing_shows_the_key_when_the_connection_is_refused(
    make_client, canary, logged
):
    port = refusing_port()
    direct = make_client(api_base_url=f"http://127.0.0.1:{port}")
    wrapped = make_client(secure_gateway=f"127.0.0.1:{port}")
    tls = make_client(api_base_url=f"https://127.0.0.1:{port}")

    for client in (direct, wrapped, tls):
        assert check(client, CALLS["report"], canary, logged) is not None


def test_nothing_shows_the_key_when_tls_fails(
    tls_server, server, make_client, canary, logged
):
    untrusted = make_client(api_base_url=tls_server.url)
    no_tls = make_client(api_base_url=server.url.replace("http:", "https:"))

    for client in (untrusted, no_tls):
        assert check(client, CALLS["lookup"], canary, logged) is not None


@pytest.mark.parametrize(
    "host", ["http://a..b", "http://" + "x" * 300, "http://\udcff", "http://%zz"]
)
def test_nothing_shows_the_key_when_the_host_is_not_one(
    make_client, canary, logged, host
):
    client = make_client(api_base_url=host)

    assert check(client, CALLS["report"], canary, logged) is not None


def test_nothing_shows_the_key_offline_or_in_settings(canary, logged):
    settings = Settings(api_key=canary, offline=True, extra_headers={"X-Key": canary})
    client = RoboflowClient(settings)

    assert check(client, CALLS["report"], canary, logged) is not None
    assert not leaks(repr(settings) + str(settings), canary)


def test_a_key_that_cannot_be_encoded_is_not_shown_either(server, make_client):
    key = "canary-\ud800-canary"
    server.otherwise = Answer(401)
    with pytest.raises(RoboflowError) as caught:
        make_client().get_roboflow_workspace(key)

    assert "canary" not in "".join(everything_of(caught.value))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX has it")
@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("get_roboflow_workspace", ()),
        ("send_report_body", ("acme", BODY, "id")),
        ("send_inference_results_to_model_monitoring", ("acme", {})),
        ("add_custom_metadata", ("acme", ["id"], "field", "value")),
    ],
)
def test_no_local_variable_shows_the_key_when_ctrl_c_ends_a_request(
    server, make_client, canary, operation, arguments
):
    def interrupt(request):
        del request
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return BlackHole()

    server.otherwise = Computed(interrupt)
    client = make_client(read_timeout=5)
    kind, shown = Call(getattr(client, operation), canary, *arguments).rendered()

    assert kind is KeyboardInterrupt
    assert not leaks(shown, canary)
    assert server.requests[0].query["api_key"] == [canary]


def test_no_local_variable_of_an_injected_client_shows_the_key(canary):
    class Client(RecordingClient):
        def get_roboflow_workspace(self, api_key):
            url = f"?api_key={api_key}"
            raise KeyboardInterrupt(len(url))

    sender = Sender(Client(), canary, {}, injected=True)
    kind, shown = Call(sender.look_up_workspace).rendered()

    assert kind is KeyboardInterrupt
    assert not leaks(shown, canary)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.11 has notes")
def test_an_error_of_an_injected_client_names_the_lines_it_came_through(canary):
    """Once, however often it is raised; and no line's text, which may hold a key."""
    failure = ZeroDivisionError("of the user")

    class Client(RecordingClient):
        def get_roboflow_workspace(self, api_key):
            return self.fail(f"?api_key={api_key}")

        def fail(self, url):
            raise failure

    sender = Sender(Client(), canary, {}, injected=True)
    for _ in range(2):
        kind, shown = Call(sender.look_up_workspace).rendered()
    assert kind is ZeroDivisionError
    assert not leaks(shown, canary)
    (note,) = failure.__notes__
    assert not leaks(note, canary)
    *_, asked, failed = note.splitlines()
    assert re.fullmatch(
        rf"  {re.escape(__file__)}:\d+ in get_roboflow_workspace", asked
    )
    assert re.fullmatch(rf"  {re.escape(__file__)}:\d+ in fail", failed)
    assert "raise failure" not in note


def test_an_error_of_the_package_ends_with_its_message():
    with pytest.raises(ValueError, match="api_base_url") as caught:
        Settings("key", "nowhere")

    assert not getattr(caught.value, "__notes__", ())


@pytest.mark.parametrize(
    "make",
    [
        lambda key: Call(Settings, key, "nowhere"),
        lambda key: Call(
            Settings.from_environment,
            {"API_KEY": key, "ROBOFLOW_API_REQUEST_TIMEOUT": key},
        ),
        lambda key: Call(
            RoboflowClient(Settings(api_key=key)).send_report_body, key, "a", b"", key
        ),
        lambda key: Call(ModelMonitoringInferenceAggregatorBlockV1, None, key),
        lambda key: Call(RoboflowCustomMetadataBlockV1, None, key),
    ],
    ids=["settings", "environment", "client", "aggregator", "metadata"],
)
def test_no_local_variable_shows_the_key_of_a_call_that_is_wrong(
    canary, monkeypatch, make
):
    monkeypatch.setenv("API_BASE_URL", "nowhere")
    monkeypatch.setenv("ROBOFLOW_API_KEY", canary)  # `os.environ` is a variable, too
    kind, shown = make(canary).rendered()

    assert kind is ValueError
    assert not leaks(shown, canary)


def test_the_control_local_variables_of_an_unguarded_request_show_the_key(canary):
    url = f"http://127.0.0.1:{refusing_port()}/?api_key={quote(canary, safe='')}"
    _, shown = Call(requests.get, url).rendered()

    assert leaks(shown, canary)


def test_the_search_would_find_what_requests_and_urllib3_show(
    server, make_client, canary, logged
):
    """The control of this module: the same search, without our client."""
    url = f"http://127.0.0.1:{refusing_port()}/?api_key={quote(canary, safe='')}"
    with pytest.raises(requests.ConnectionError) as caught:
        requests.get(url, timeout=1)
    assert any(leaks(text, canary) for text in everything_of(caught.value))

    make_client()  # guards urllib3's loggers, for any request with an api_key
    requests.get(f"{server.url}/?other={quote(canary, safe='')}", timeout=1)
    assert any(leaks(line, canary) for line in logged)
