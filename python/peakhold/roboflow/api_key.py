"""Where an api key lives, so that nothing shows it but the requests that need it.

Error trackers and rich tracebacks record the local variables of every frame that an
exception passes. Two things keep the key out of them: ``ApiKey``, which objects hold in
its place, and ``without_locals`` around what has to use its text.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import wraps
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from peakhold.texts import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_NOTE = "raised through (frames are left out: their variables may hold an api key)"
_NOTED_FRAMES = 20
_PACKAGE = str(Path(__file__).parents[1])


class ApiKey:
    """An api key that no text of it shows; ``reveal`` returns the key.

    It equals its text, cannot be pickled, and a copy of it is the same object.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Hide a key."""
        self._text = text_of(text)

    @classmethod
    def of(cls, key: ApiKey | str) -> ApiKey:
        """Return a key hidden, if it is not so already."""
        return key if isinstance(key, ApiKey) else cls(key)

    def reveal(self) -> str:
        """Return the key. It is for an argument at once, not for a variable."""
        return self._text

    def __repr__(self) -> str:
        """Show that it is a key, and nothing of it."""
        return "ApiKey(***)"

    def __bool__(self) -> bool:
        """Whether there is a key: its text is not empty."""
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """Whether another one, or a text, is the same key."""
        if isinstance(other, (ApiKey, str)):
            return self._text == ApiKey.of(other)._text
        return NotImplemented

    def __hash__(self) -> int:
        """Return the hash of its text."""
        return hash(self._text)

    def __copy__(self) -> ApiKey:
        """Return the same object."""
        return self

    def __deepcopy__(self, memo: object) -> ApiKey:
        """Return the same object."""
        return self

    def __getstate__(self) -> object:
        """Refuse to be pickled: the key must not leave this process's memory."""
        message = (
            "an api key cannot be pickled: give it to the other process by its "
            "environment (ROBOFLOW_API_KEY)"
        )
        raise TypeError(message)


def without_locals(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Have no exception bring frames out of a function that works with a key.

    Whatever leaves it, ``KeyboardInterrupt`` included, has a traceback that begins with
    the call, and neither cause nor context. From Python 3.11 on, a note has the lines
    that it came through by file, number and function.
    """

    @wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            del args, kwargs  # this frame stays
            _note_frames(error)
            error.__cause__ = error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same exception

    return call


def _note_frames(error: BaseException) -> None:
    """Note where an exception of other code than the package's comes from.

    A call inside the guarded one may have done so already.
    """
    if sys.version_info >= (3, 11):
        with suppress(Exception):  # an injected client's exception may refuse
            # The first frame is that of the guarded call.
            lines = [
                f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
                for frame, line in walk_tb(error.__traceback__)
            ][1:]
            notes = getattr(error, "__notes__", ())
            own = bool(lines) and lines[-1].startswith(f"  {_PACKAGE}")
            if (
                lines
                and not own
                and not any(str(note).startswith(_NOTE) for note in notes)
            ):
                error.add_note("\n".join([f"{_NOTE}:", *lines[-_NOTED_FRAMES:]]))
