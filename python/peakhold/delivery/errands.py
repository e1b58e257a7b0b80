"""What a frame loop leaves to a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.notices import Notices

_POLL = 0.01


class Errands:
    """Calls that are begun in order, on one thread, soon.

    Leaving one takes two calls into C. A frame loop comes here once a window, with cold
    caches, where each Python function called takes ten times as long as it otherwise
    does: waking the workers by their condition takes some 60 us then.

    A call may hang, in a host's cache for example. Then whoever else calls ``run`` goes
    on with the next ones; who leaves one is told that the workers are to.

    Attributes:
        thread: The thread, once it was started.
    """

    def __init__(self, notices: Notices, *, wanted: bool) -> None:
        """Start no thread yet, and never one unless ``wanted``."""
        self.thread: threading.Thread | None = None
        self._notices = notices
        self._wanted = wanted
        self._stopped = False
        self._left: deque[Callable[[], object]] = deque()
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._lock = threading.Lock()
        self._running: list[Callable[[], object]] = []
        self._interrupted: Callable[[], object] | None = None

    def __len__(self) -> int:
        """Return the number of calls that are not through."""
        with self._lock:
            return len(self._left) + len(self._running)

    def leave(self, call: Callable[[], object]) -> bool:
        """Have ``call`` called by the thread; returns whether that was free for it."""
        self._left.append(call)
        # After it was left, so that of two that come at once one at least is told.
        free = self.thread is not None and len(self._left) == 1 and not self._running
        self._bell.put(True)  # noqa: FBT003 - it is the item
        return free

    def start(self) -> None:
        """Start the thread ahead of the first call; at exit Python 3.12 starts none."""
        with self._lock:
            if not self._wanted or self._stopped or self.thread is not None:
                return
            thread = threading.Thread(
                target=self._work, name="peakhold-errands", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # the workers do what is left, then
                self._notices.warn("thread", "No thread could be started: %s", error)
            else:
                self.thread = thread

    def run(self) -> None:
        """Make the calls that were left and not begun, on the caller's thread.

        One that ends in what is not an ``Exception``, which may be of a signal handler
        and have nothing to do with it, is left once more.
        """
        while self._left:
            call: Callable[[], object] | None = None
            try:
                with self._lock:
                    if not self._left:
                        return
                    call = self._left[0]
                    self._running.append(call)  # first, for ``leave`` takes no lock
                    self._left.popleft()
                call()
            except Exception as error:  # noqa: BLE001 - the next ones come all the same
                self._unexpected(error)
            except BaseException:
                if call and call not in self._left and call is not self._interrupted:
                    self._interrupted = call
                    self._left.appendleft(call)
                    self._bell.put(True)  # noqa: FBT003 - likewise
                raise
            finally:
                if call in self._running:
                    self._running.remove(call)

    def finish(self, timeout: float) -> None:
        """Wait until all calls are through, for ``timeout`` seconds at most."""
        if self.thread is None or not self.thread.is_alive():
            self.run()
        deadline = time.monotonic() + timeout
        while len(self) and time.monotonic() < deadline:
            time.sleep(_POLL)

    def stop(self) -> None:
        """Have the thread end, for good."""
        with self._lock:
            self._stopped = True
            self.thread = None
        self._bell.put(False)  # noqa: FBT003 - likewise

    def _work(self) -> None:
        with self._lock:
            if self._stopped:
                return
            self.thread = threading.current_thread()  # see `Workers`
        while self._bell.get():
            try:
                self.run()
            except BaseException as error:  # noqa: BLE001, PERF203 - else the thread ends
                self._unexpected(error)

    def _unexpected(self, error: BaseException) -> None:
        self._notices.warn(
            "errand", "An unexpected %s: %s", type(error).__name__, error
        )
