"""Recordings: files of JSON lines, plain or gzipped, read into frames."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from peakhold.cli.errors import CommandError, one_line
from peakhold.cli.predictions import Prediction, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STDIN = "-"
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Frame:
    """What the models said about one image."""

    predictions: tuple[Prediction, ...]


def read_frames(source: str, default_model: str) -> Iterator[Frame]:
    """Read a recording, one line at a time.

    Lines that follow each other, name the same `image` and different models are one
    frame; any other line is a frame of its own. A frame is known to be whole when the
    next one begins, so a pipe is one line behind. Empty lines are skipped.

    Args:
        source: A path, or `-` for standard input. Gzip is recognised by its content.
        default_model: Model id of lines that name none.

    Raises:
        CommandError: It cannot be read, or a line is none of the known layouts; the
            text has the number of the line.
    """
    image: str | None = None
    predictions: list[Prediction] = []
    bad_line: CommandError | None = None
    lines = _read_predictions(source, default_model)
    while True:
        try:
            line = next(lines, None)
        except CommandError as error:
            bad_line = error  # told once the lines before it are on their way
            line = None
        if line is None:
            break
        this_image, prediction = line
        same_frame = (
            this_image is not None
            and this_image == image
            and all(prediction.model_id != other.model_id for other in predictions)
        )
        if predictions and not same_frame:
            yield Frame(tuple(predictions))
            predictions = []
        image = this_image
        predictions.append(prediction)
    if predictions:
        yield Frame(tuple(predictions))
    if bad_line is not None:
        raise bad_line


def load_frames(sources: Iterable[str], default_model: str) -> list[Frame]:
    """Read recordings whole, so that a bad line is found before anything is sent.

    Raises:
        CommandError: As `read_frames`; or there is no prediction in one of them.
    """
    frames: list[Frame] = []
    for source in sources:
        before = len(frames)
        frames.extend(read_frames(source, default_model))
        if len(frames) == before:
            raise CommandError(
                f"{one_line(source)} holds no predictions; it must have one JSON "
                "object per line"
            )
    return frames


def _read_predictions(
    source: str, default_model: str
) -> Iterator[tuple[str | None, Prediction]]:
    name = "standard input" if source == STDIN else one_line(source)
    number = 0
    try:
        with _opened(source) as file:
            for number, raw in enumerate(file, 1):
                # A byte order mark is what some editors on Windows begin with.
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                line = json.loads(text)
                prediction = parse_line(line, default_model)
                image = line.get("image")
                yield (image if isinstance(image, str) else None), prediction
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandError(
            f"cannot read {name}: {one_line(reason)}; give a file of JSON lines, "
            "plain or gzipped"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CommandError(
            f"{name}, line {number}: {one_line(_what(error))}; "
            "correct or remove the line"
        ) from error


def _what(error: Exception) -> object:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({error.reason})"
    if isinstance(error, RecursionError):
        return "nested too deep"
    return error


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO | gzip.GzipFile]:
    if source == STDIN:
        # Left open: it is not this module's to close.
        yield _decompressed(sys.stdin.buffer)
        return
    with open(source, "rb") as file:  # noqa: PTH123 - a path as the user typed it
        yield _decompressed(file)


def _decompressed(file: BinaryIO) -> BinaryIO | gzip.GzipFile:
    if isinstance(file, io.BufferedReader) and file.peek(2)[:2] == _GZIP:
        return gzip.GzipFile(fileobj=file)
    return file
