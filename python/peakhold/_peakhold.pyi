"""The Rust core as Python sees it."""

from os import PathLike
from typing import Any, Final, TypedDict, final, type_check_only

__all__ = [
    "PeakAggregator",
    "WindowJournal",
    "WindowSnapshot",
    "__version__",
    "build_profile",
    "recover_journal",
    "rejected_inference_ids",
    "unique_inference_ids",
]

__version__: Final[str]

build_profile: Final[str]
"""What the extension was built as: `"release"` or `"debug"`."""

@type_check_only
class ReportLine(TypedDict):
    """The representative of one class in a report."""

    model_id: str
    class_name: str
    confidence: float
    inference_id: str
    model_type: str

@final
class PeakAggregator:
    """Keep the most confident detection of every class until it is drained.

    Holds one peak per class and model, never a frame: memory grows with classes and
    models, not with detections. Any number of threads may observe and drain at once,
    and nobody waits for a lock, but for the first record of a journal.

    `PEAKHOLD_MAX_CLASSES` (default 100,000), read when an aggregator is made, bounds
    the classes of one window, counted per model, and its models. Names and ids take at
    most 64 MiB of it.

    With a `journal`, record highs are also written to a file per window before
    `observe` returns, so that a killed process loses none. Nothing raises because of
    that file; `WindowJournal.error` says whether it is whole.

    Args:
        journal: What the files' paths begin with; `-`, the number of the window and
            `.journal` follow. No other aggregator may use the same.
        about: Stands at the head of each file, for whoever recovers it; nothing by
            default.
        sync: Whether to wait for the disk, so that the loss of power loses none either.
        limit: Bytes that the journals of the process may take; a window whose next
            record would not fit goes on without one.

    Raises:
        ValueError: If `PEAKHOLD_MAX_CLASSES` is not a whole number of at least 1.
    """

    def __new__(
        cls,
        *,
        journal: str | PathLike[str] | None = None,
        about: bytes = ...,
        sync: bool = False,
        limit: int = ...,
    ) -> PeakAggregator: ...
    def observe(self, predictions: Any, model_id: str) -> int:
        """Take one frame of a model.

        Confidences and class names are read in place from NumPy arrays of shape `(n,)`:
        floats, integers and booleans; `U` and `S` text; strided or not, in either byte
        order. Arrays of objects, lists and tuples are converted item by item, as the
        items of a dict are: a confidence may be whatever `float()` takes (numeric text,
        scalars and tensors of one element), but for NumPy's complex numbers and times.

        Tensor-native predictions are the dataclasses of `inference_models`, known by
        their fields: detections (alone, or second in a pair with key points) have
        `class_id`, `confidence` and `image_metadata`; single-label classification has
        `images_metadata` instead; multi-label has `class_ids`. Class names come from
        `"class_names"` of the metadata by id. torch is not imported. Tensors on the CPU
        are read in place, but for types unknown to NumPy (bfloat16); of those
        elsewhere, confidences and class ids are copied.

        What cannot be used is skipped and counted in `rejected`; the first of each kind
        is logged as a warning. A running stream never raises for what is in a frame. A
        missing class name, inference id or prediction type reads as `""` and is counted
        there too, but the row is taken. (Ids and types are only read for new peaks.)

        Args:
            predictions: An `sv.Detections` (anything with its `confidence` and
                `data`), a classification dict whose `"predictions"` is a list
                (single-label) or a dict (multi-label), a tensor-native prediction, or
                None. Anything else truthy has no rows, but gives its model its place in
                the order of the report.
            model_id: The model, as in `"project/3"`.

        Returns:
            The number of rows taken.

        Raises:
            TypeError: If `model_id` is not a str.
        """

    def drain(self) -> list[ReportLine]:
        """Close the window, begin a new one, and return the closed one's report.

        Its journal, if it has one, is removed.

        Returns:
            One line per class, the most confident of all models; `model_type` is the
            prediction type of the detection. Models stand in the order in which the
            window first saw them, and within a model its classes in the order of their
            first detection; a class stands where it first appears in that walk, and
            among equal confidences the first in that walk wins.
        """

    def snapshot(self) -> WindowSnapshot:
        """Close the window like `drain`, and return what it held for later use.

        Closing takes as long whatever the window holds; that is only looked at when
        the snapshot is first used. Its journal stays until `WindowJournal.remove`.
        """

    def begin_journals(
        self,
        journal: str | PathLike[str],
        *,
        about: bytes = ...,
        sync: bool = False,
        limit: int = ...,
    ) -> None:
        """Have the windows that begin from now on write journals, if none do so far.

        Args:
            journal: As for the constructor, as the others.
            about: Stands at the head of each file.
            sync: Whether to wait for the disk.
            limit: Bytes that the journals of the process may take.
        """

    def prepare_journal(self) -> None:
        """Make the file of the open window's journal ahead of its first record.

        `observe` need not wait for that then. Without a `journal` it does nothing;
        draining removes the file, used or not.
        """

    @property
    def peaks(self) -> int:
        """Classes in the open window, counted per model; 0 if nothing was taken."""

    @property
    def rejected(self) -> dict[str, int]:
        """What was skipped or incomplete so far, by reason.

        Rows, or frames where a whole one is skipped. The reasons `class_name_missing`,
        `inference_id_invalid` and `prediction_type_invalid` count rows that were taken,
        with `""` for what is missing or unusable.
        """

@final
class WindowSnapshot:
    """What a closed window held, to be merged, encoded or reported.

    The window is emptied when something of it is first asked for. If that failed, later
    calls raise RuntimeError.
    """

    @staticmethod
    def decode(encoded: bytes, /) -> WindowSnapshot:
        """Read what `encode` has written.

        Raises:
            ValueError: If the bytes are damaged, foreign or of a later layout.
        """

    def encode(self) -> bytes:
        """Return the snapshot as bytes."""

    def merge(self, other: WindowSnapshot, /) -> WindowSnapshot:
        """Return both windows as one; commutative, associative and idempotent.

        The greater confidence wins, and among equals the smaller place (window
        sequence, model ordinal, arrival ordinal); a class keeps the smaller place of
        first sight.
        """

    def report(self) -> list[ReportLine]:
        """Return one line per class, in the order of `PeakAggregator.drain`."""

    def report_json(self, first: int, last: int, /) -> bytes:
        """Return lines of `report` as JSON, made without the interpreter lock.

        Args:
            first: Number of the first line.
            last: Number of the line after the last one.

        Returns:
            JSON objects with commas between them, UTF-8; nothing if there are no such
            lines.
        """

    def report_parts(self, limit: int, /) -> list[int]:
        """Return where `report` is to be divided for requests of bounded size.

        Args:
            limit: Bytes that one part may take as JSON; a line that is longer is a part
                by itself.

        Returns:
            The number of each part's first line, and the number of lines.
        """

    @property
    def lines(self) -> int:
        """Lines in `report`: classes held, counted once whatever their models."""

    @property
    def journal(self) -> WindowJournal | None:
        """The file of the closed window's record highs; None if it has none."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes: an estimate, by the texts once it was used."""

    @property
    def peaks(self) -> int:
        """Classes held, counted per model."""

@final
class WindowJournal:
    """The file that a closed window's record highs were written to.

    There is none on the disk if nothing was observed.
    """

    @property
    def name(self) -> str:
        """File name without its suffix."""

    @property
    def error(self) -> str | None:
        """Why writing was given up, None if all is written."""

    @property
    def slow_writes(self) -> int:
        """Writes to its aggregator's journals that took over 5 ms.

        After the first one, `observe` writes without holding the interpreter.
        """

    def remove(self) -> None:
        """Delete the file: the window is safe elsewhere.

        What an observer that was slower than the closing writes afterwards goes
        nowhere.

        Raises:
            OSError: If there is a file and it cannot be deleted.
        """

def recover_journal(data: bytes, /) -> tuple[bytes | None, WindowSnapshot, bool]:
    """Read a journal as far as it is whole.

    Args:
        data: The bytes of the file, in whatever state they are.

    Returns:
        The `about` of its aggregator, None if not even that is whole; what the window
        held; whether the bytes go on after the last whole record.

    Raises:
        ValueError: If it is a file of something else or of a later version.
    """

def unique_inference_ids(predictions: Any) -> list[str]:
    """Return the inference ids of a frame, each once, in first-seen order.

    Args:
        predictions: An `sv.Detections` (`data["inference_id"]` of shape `(n,)`), a dict
            (its `"inference_id"`), or a tensor-native prediction (that of its metadata,
            of the first image if there are several); anything else has none. Where
            rows give none, `metadata["inference_id"]` counts, if there is one.

    Returns:
        The ids as str. None and `""` are not ids; what is no text is skipped and
        counted, and the first of its kind logged as a warning.
    """

def rejected_inference_ids() -> dict[str, int]:
    """Return what `unique_inference_ids` skipped in this process, by reason.

    Ids, or frames where a whole one is skipped.
    """
