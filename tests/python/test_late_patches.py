"""Nothing that blocks is bound at import: an application may patch the library later.

A server for greenlets (gevent, eventlet) may do so after it has imported the
application. What was bound before blocks the one thread that all greenlets share.
"""

from __future__ import annotations

import subprocess
import sys

FIND = """
import importlib, importlib.machinery, pkgutil, queue, select, socket, subprocess, sys
import threading, time, types

name = sys.argv[1]
found = set()

class AnyType(type):
    def __getattr__(cls, attribute):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Any

    def __iter__(cls):
        return iter(())

class Any(metaclass=AnyType):
    def __new__(cls, *arguments, **options):
        return cls

class AnyHost(types.ModuleType):
    __getattr__ = AnyType.__getattr__
    create_module = staticmethod(lambda spec: AnyHost(spec.name))
    exec_module = staticmethod(lambda module: None)

    @staticmethod
    def find_spec(path, within=None, target=None):
        if path.partition(".")[0] in ("roboflow_workflows", "pydantic"):
            spec = importlib.machinery.ModuleSpec(path, AnyHost, is_package=True)
            return spec

# Stands in where there is no host, for what the plugin is made of.
sys.meta_path.append(AnyHost)

def import_all():
    pending = [name]
    while pending:
        module = importlib.import_module(pending.pop())
        for part in pkgutil.iter_modules(getattr(module, "__path__", [])):
            # Those are programs: importing one runs it, and nothing patches it later.
            if part.name != "__main__":
                pending.append(f"{module.__name__}.{part.name}")

# What the package uses is not looked at, and may derive from what is watched below.
import_all()
for path, module in list(sys.modules.items()):
    if path.partition(".")[0] == name and module.__spec__.origin.endswith(".py"):
        del sys.modules[path]

blocking = {
    threading: ["Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore",
                "Barrier", "Thread", "Timer", "local"],
    queue: ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"],
    time: ["sleep"],
    select: ["select"],
    socket: ["socket", "create_connection", "getaddrinfo", "gethostbyname"],
    subprocess: ["Popen", "run", "check_output"],
}

class Watched:
    def __init__(self, label, original):
        self.label, self.original = label, original

    def note(self, does):
        caller = sys._getframe(2).f_globals["__name__"]
        if caller.partition(".")[0] == name:
            found.add(f"{caller} {does} {self.label}")

    def __call__(self, *arguments, **options):
        self.note("calls")
        return self.original(*arguments, **options)

    def __mro_entries__(self, bases):
        self.note("derives from")
        return (self.original,)

watched = {}
for module, names in blocking.items():
    for attribute in names:
        label = f"{module.__name__}.{attribute}"
        original = getattr(module, attribute)
        called = Watched(label, original)
        watched[id(called)] = watched[id(original)] = label
        setattr(module, attribute, called)

import_all()
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
    """All of it: extras and the command, too, which applications may import."""
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
    "derived": "import threading\nclass A(threading.local): pass",
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
        "sample.derived derives from threading.local",
        "sample.lock calls threading.Lock",
        "sample.made calls threading.Condition",
        "sample.queue binds queue.SimpleQueue",
        "sample.sleep binds time.sleep",
    ]
