"""Processes that a test starts, listens to and kills."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")
PATIENCE = 60.0
"""Seconds after which a process that should have spoken is taken to hang."""


class Process:
    """A Python program of ``programs/``; its lines arrive as it writes them.

    Attributes:
        lines: What it wrote so far and was not read yet; None is its end.
    """

    def __init__(self, program, *arguments, mutant="", **environment):
        """Start it; ``mutant`` names what the program is to break in itself."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore::DeprecationWarning"),
                *(PROGRAMS / f"{program}.py", *map(str, arguments)),
            ],
            env={**os.environ, "PEAKHOLD_TEST_MUTANT": mutant, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = queue.SimpleQueue()
        self._errors = []
        self._readers = [
            threading.Thread(target=target, daemon=True)
            for target in (self._read, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.removesuffix("\n"))
        self.lines.put(None)

    def _read_errors(self):
        self._errors.extend(self.process.stderr)

    def tell(self, line):
        """Write a line to its standard input."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self, timeout=PATIENCE):
        """Return its next line.

        Raises:
            AssertionError: If it ended or was silent instead.
        """
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            line = None
        assert line is not None, f"it ended, or said nothing: {self.errors()}"
        return line

    def hear_until(self, word, timeout=PATIENCE):
        """Return the rest of the first line that begins with a word."""
        while True:
            first, _, rest = self.hear(timeout).partition(" ")
            if first == word:
                return rest

    def rest(self):
        """Return every line to its end, once it has ended."""
        self._readers[0].join(PATIENCE)
        return list(iter(self.lines.get, None))

    def errors(self):
        """Return what it wrote to standard error so far."""
        if self.process.poll() is not None:
            self._readers[1].join(PATIENCE)
        return "".join(self._errors)

    def send(self, number):
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self):
        """Kill it as nothing else does: no handler, no atexit, no flush."""
        self.process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        return self.ended()

    def ended(self, timeout=PATIENCE):
        """Wait for its end; returns the exit code."""
        return self.process.wait(timeout)


class Processes:
    """Those of one test."""

    def __init__(self):
        """Start none."""
        self._all = []

    def start(self, program, *arguments, **options):
        """Start one, see ``Process``."""
        self._all.append(Process(program, *arguments, **options))
        return self._all[-1]

    def end(self):
        """Kill what is left."""
        for process in self._all:
            if process.process.poll() is None:
                process.kill()
            for stream in ("stdin", "stdout", "stderr"):
                getattr(process.process, stream).close()
