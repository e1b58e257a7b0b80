"""R18: the api key leaves the memory of the process by its requests alone."""

from __future__ import annotations

import base64
import itertools
import os
import re
import sqlite3
import stat
import subprocess
import sys
import zlib
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, quote_plus, urlsplit

import pytest
from processes import PROGRAMS
from redis_server import PROGRAM, WITHOUT, Line, RedisServer

from peakhold.monitor import MonitorServer
from peakhold.outbox.packing import UNREADABLE, unpack
from peakhold.testing import (
    Answer,
    CutOff,
    LostAcknowledgement,
    Reset,
    redirect,
    refuse,
)

CANARY = "canary/+key=secret&%7e9d2f"
ROUNDS = 15
FAULTS = (
    *map(Answer, (400, 401, 402, 403, 404, 413, 415, 422, 423, 429, 500, 503)),
    *(refuse(503, 1), Reset(), LostAcknowledgement(), CutOff()),
    redirect("http://127.0.0.1:1/elsewhere"),
)
SUITES = ("roboflow", "records", "outbox", "delivery", "blocks")
OWN_CONTROLS = "not urllib3_logs_of and not search_would_find"
SUITES_KEYS = ("canary/+key=", "canary-key", "canary-7f3a9c51")
"""Those that are the same in each run, or what they begin with."""


def forms_of(key):
    once = quote(key, safe="")
    forms = {key, once, once.lower(), quote(once, safe=""), quote(key), quote_plus(key)}
    return {form.encode() for form in forms} | {base64.b64encode(key.encode())}


def hits(content, key=CANARY):
    """Return the forms of a key that some bytes hold."""
    return {form for form in forms_of(key) if form in content}


def inflated(path):
    """Yield every value of a database, and what it is uncompressed."""
    with closing(sqlite3.connect(path)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in names.fetchall():
            for value in itertools.chain(*database.execute(f"SELECT * FROM {table}")):
                data = value if isinstance(value, bytes) else str(value).encode()
                yield data
                with suppress(zlib.error):
                    yield zlib.decompress(data)
                with suppress(UNREADABLE):
                    yield unpack(data)


def told(environment):
    """Return what the commands say that look at the state directory."""
    said = b""
    for words in ("status", "status --json", "doctor"):
        command = [sys.executable, "-m", "peakhold", *words.split()]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, check=False
        )
        assert done.stdout, done.stderr
        said += done.stdout + done.stderr
    return said


def leaks(start, api, state, **options):
    """Let everything go wrong; returns where the key showed."""
    faults = itertools.cycle(FAULTS)
    api.faults = lambda _request: next(faults)
    process = start("secret", api.url, CANARY, ROUNDS, **options)
    process.hear_until("done")
    process.ended()
    found = {}
    if shown := hits(process.errors().encode()):
        found["log"] = shown
    for path in state.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if path.name == "outbox.sqlite3":
            content += b"\n".join(inflated(path))
        if shown := hits(content) | hits(str(path).encode()):
            found[path.name] = shown
    return found


def test_no_log_no_exception_and_no_file_holds_the_key(api, start, state, figure):
    api.lookups = [Answer(500), Answer(401), Reset()]
    assert leaks(start, api, state) == {}
    requests = [request.target.encode() for request in api.requests]
    assert all(hits(target) for target in requests)  # it was used
    figure("R18", f"{len(requests)} requests with the key, 0 hits elsewhere")


@pytest.fixture(params=["refuses", "is silent", "knows another password", "works"])
def redis_url(request):
    """The URL of a Redis, which holds the canary twice."""
    if PROGRAM is None:
        pytest.skip(WITHOUT)
    secret = quote(CANARY, safe="")
    with RedisServer() as server, Line(server.port) as line:
        if request.param == "refuses":
            line.refuse()
        elif request.param == "is silent":
            line.cut()
        elif request.param == "works":
            may = ("~*", "&*", "+@all")
            server.ask("ACL", "SETUSER", "user", "on", f">{CANARY}", *may)
        yield f"redis://user:{secret}@127.0.0.1:{line.port}/0?password={secret}"
        assert line.connections or request.param == "refuses"


def test_no_log_no_exception_no_file_and_no_command_holds_the_redis_password(
    api, start, state, redis_url, figure
):
    assert leaks(start, api, state, PEAKHOLD_SHARE=redis_url) == {}
    said = told({"PEAKHOLD_SHARE": redis_url})
    assert b"127.0.0.1" in said
    assert hits(said) == set()
    figure("R18", "password of a Redis: 0 hits")


@pytest.mark.parametrize("mutant", ["show_the_redis", "tell_what_redis_said"])
@pytest.mark.parametrize("redis_url", ["knows another password"], indirect=True)
def test_the_control_a_redis_password_that_shows_is_found(
    api, start, state, redis_url, mutant, figure
):
    found = leaks(start, api, state, PEAKHOLD_SHARE=redis_url, mutant=mutant)
    assert "log" in found
    figure("R18n", f"{mutant}: {len(found['log'])} forms of the password in the log")


@pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
def test_files_are_their_owner_s_alone(api, start, state):
    leaks(start, api, state)
    assert list(state.rglob("*.sqlite3"))
    for path in (state, *state.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(
    ("mutant", "where"),
    [
        ("log_the_url", "log"),
        ("bring_the_frames", "log"),
        ("store_the_key", "outbox.sqlite3"),
    ],
)
def test_the_control_a_key_that_shows_is_found(
    api, start, state, mutant, where, figure
):
    found = leaks(start, api, state, mutant=mutant)
    assert where in found
    figure("R18n", f"{mutant}: {len(found[where])} forms of the key in {where}")


def test_the_monitor_shows_and_keeps_no_key(tmp_path, figure):
    data = tmp_path / "monitor.db"
    pages = []
    with MonitorServer(data=data) as monitor:
        connection = HTTPConnection(urlsplit(monitor.url).netloc, timeout=10)
        for method, path in (
            ("GET", "/?api_key={}"),
            ("POST", "/local/inference-stats?api_key={}"),
            ("GET", "/dashboard?api_key={}"),
            ("GET", "/nothing?api_key={}"),
        ):
            body = b'{"inference_results": []}' if method == "POST" else None
            connection.request(method, path.format(quote(CANARY, safe="")), body)
            pages.append(connection.getresponse().read())
        connection.close()
    assert hits(b"".join(pages)) == set()
    kept = b"".join(p.read_bytes() for p in tmp_path.iterdir() if p.is_file())
    assert hits(kept + b"".join(inflated(data))) == set()
    figure("R18", f"{len(pages)} pages of the monitor and its file: 0 hits")


def suites(directory, *options, suites=SUITES):
    """Run suites, logging everything; returns what was logged.

    Side by side, for that a test of theirs fails is no matter of this one. Their own
    controls, which log a key, are left out.
    """
    root = Path(__file__).parents[2]
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(f"--log-file={directory / suite.replace('/', '-')}",),
                *("--log-file-level=DEBUG", "-k", OWN_CONTROLS, *options),
                root / "tests" / "python" / suite,
            ],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(PROGRAMS)},
            stdout=subprocess.DEVNULL,
        )
        for suite in suites
    ]
    assert {process.wait(600) for process in started} <= {0, 1}
    return b"\n".join(file.read_bytes() for file in directory.iterdir())


def shown(logged):
    """Return the keys of the suites that show in some form, those of chance as well."""
    fixed = {key for key in SUITES_KEYS if hits(logged, key)}
    return fixed | set(re.findall(rb"canary[0-9a-f]{32}", logged))


@pytest.fixture
def logs(tmp_path):
    directory = tmp_path / "logs"
    directory.mkdir()
    return directory


def test_nothing_that_the_suites_log_at_debug_holds_a_key(logs, figure):
    logged = suites(logs)
    assert b"urllib3" in logged  # it did log
    assert shown(logged) == set()
    figure("R18", f"{len(SUITES)} suites at DEBUG, {len(logged)} bytes logged, 0 hits")


def test_the_control_logs_that_nobody_guards_hold_keys(logs, figure):
    unguarded = ("-p", "unguarded")
    logged = suites(logs, *unguarded, suites=["delivery/test_over_http.py"])
    found = shown(logged)
    assert found != set()
    figure("R18n", f"unguarded logs: {len(found)} keys")
