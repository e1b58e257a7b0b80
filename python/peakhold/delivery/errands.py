"""What a frame loop leaves to a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.notices import Notices


class Errands:
    """Calls that are made in order, on one thread, soon.

    Leaving one takes two calls into C. A frame loop comes here once a window, with cold
    caches, where each Python function called takes ten times as long as it otherwise
    does: waking the workers by their condition takes some 60 us then.
    """

    def __init__(self, notices: Notices, *, wanted: bool) -> None:
        """Start no thread yet, and never one unless ``wanted``."""
        self._notices = notices
        self._wanted = wanted
        self._left: deque[Callable[[], object]] = deque()
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._running = threading.Lock()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Return the number of calls that are not through."""
        return len(self._left)

    def leave(self, call: Callable[[], object]) -> None:
        """Have ``call`` called by the thread."""
        self._left.append(call)
        self._bell.put(True)  # noqa: FBT003 - it is the item

    def start(self) -> None:
        """Start the thread ahead of the first call; at exit Python 3.12 starts none."""
        if self._wanted and self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="peakhold-errands", daemon=True
            )
            self._thread.start()

    def run(self) -> None:
        """Make the calls that were left, on the caller's thread."""
        with self._running:
            while self._left:
                self._make(self._left[0])
                self._left.popleft()

    def _make(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the next ones come all the same
            self._notices.warn(
                "errand", "An unexpected %s: %s", type(error).__name__, error
            )

    def stop(self) -> None:
        """Have the thread end."""
        self._bell.put(False)  # noqa: FBT003 - likewise

    def _work(self) -> None:
        while self._bell.get():
            self.run()
