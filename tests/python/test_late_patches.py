"""Nothing that blocks is bound at import: an application may patch the library later.

A server for greenlets (gevent, eventlet) may do so after it has imported the
application. What was bound before blocks the one thread that all greenlets share.
"""

from __future__ import annotations

import subprocess
import sys

FIND = """
import importlib, pkgutil, queue, select, socket, sqlite3, subprocess, sys, threading
import time
import concurrent.futures, logging, multiprocessing.util, numpy, platformdirs, requests

name = sys.argv[1]
found = set()
blocking = {
    threading: ["Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore",
                "Barrier", "Thread", "Timer", "local"],
    queue: ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"],
    time: ["sleep"],
    select: ["select"],
    socket: ["socket", "create_connection", "getaddrinfo", "gethostbyname"],
    subprocess: ["Popen", "run", "check_output"],
}

def watch(label, original):
    def called(*arguments, **options):
        caller = sys._getframe(1).f_globals["__name__"]
        if caller.partition(".")[0] == name:
            found.add(f"{caller} calls {label}")
        return original(*arguments, **options)
    return called

watched = {}
for module, names in blocking.items():
    for attribute in names:
        label = f"{module.__name__}.{attribute}"
        original = getattr(module, attribute)
        called = watch(label, original)
        watched[id(called)] = watched[id(original)] = label
        setattr(module, attribute, called)

apart = tuple(f"{name}.{part}" for part in ("cli", "monitor", "testing", "__main__"))
pending = [name]
while pending:
    module = importlib.import_module(pending.pop())
    for part in pkgutil.iter_modules(getattr(module, "__path__", [])):
        path = f"{module.__name__}.{part.name}"
        if not path.startswith((*apart, f"{name}.workflows", f"{name}.metrics")):
            pending.append(path)
for path, module in list(sys.modules.items()):
    if path.partition(".")[0] == name:
        for attribute, value in vars(module).items():
            if id(value) in watched:
                found.add(f"{path} binds {watched[id(value)]}")
print(*sorted(found), sep="\\n", end="")
"""


def bound_at_import(name, directory=None):
    """Return what a package calls or binds while it is imported."""
    answer = subprocess.run(
        [sys.executable, "-c", FIND, name],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def test_the_package_binds_nothing_that_blocks_at_import():
    assert bound_at_import("peakhold") == []


PARTS = {
    "lock": "import threading\n_lock = threading.Lock()",
    "queue": "from queue import SimpleQueue",
    "sleep": "from time import sleep",
    "made": """
import threading
class A:
    def __init__(self):
        self.changed = threading.Condition()
A()
""",
    "called": "import threading\ndef call(): return threading.Lock()",
    "clock": "from time import monotonic",
}


def test_the_control_what_is_bound_at_import_is_noticed(tmp_path):
    package = tmp_path / "sample"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, source in PARTS.items():
        (package / f"{name}.py").write_text(source)
    assert bound_at_import("sample", tmp_path) == [
        "sample.lock calls threading.Lock",
        "sample.made calls threading.Condition",
        "sample.queue binds queue.SimpleQueue",
        "sample.sleep binds time.sleep",
    ]
