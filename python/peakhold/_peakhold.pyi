"""The Rust core as Python sees it."""

from collections import deque
from os import PathLike
from typing import Any, Final, TypeAlias, TypedDict, final, type_check_only

__all__ = [
    "Journal",
    "MetadataBatch",
    "MetadataJournal",
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

@type_check_only
class ClassStatistics(TypedDict):
    """How many detections of a class there were, and with what confidences.

    Attributes:
        frames: Frames that had the class.
        detections: Detections taken.
        out_of_range: Of these, such whose confidence is outside of [0, 1].
        confidence_sum: Sum of the confidences within [0, 1], each rounded to a multiple
            of 2**-32; exact in whatever order and from however many threads they came.
        confidence_min: The least confidence within [0, 1]; None if there is none.
        histogram: Detections in 20 bins of equal width; that of a confidence is
            `min(19, floor(confidence * 20))` in 64-bit floating point, and the outer
            ones have what is outside of [0, 1], too.
    """

    frames: int
    detections: int
    out_of_range: int
    confidence_sum: float
    confidence_min: float | None
    histogram: list[int]

@type_check_only
class _CountedLine(ReportLine, ClassStatistics):
    """A line of a report with the statistics of its class, over all models."""

@type_check_only
class Statistics(TypedDict):
    """The statistics of one window, or of several.

    Attributes:
        frames: Frames observed, those without a detection included; of a prediction for
            several images, each image.
        is_partial: Whether the last observations are missing: the window is open, or
            its process was killed.
        without: Classes that have none, for want of room.
        rejected: What was skipped or incomplete, by reason, see
            `PeakAggregator.rejected`.
        models: By model id and class name.
    """

    frames: int
    is_partial: bool
    without: int
    rejected: dict[str, int]
    models: dict[str, dict[str, ClassStatistics]]

@final
class PeakAggregator:
    """Keep the most confident detection of every class until it is drained.

    Holds one peak per class and model, never a frame: memory grows with classes and
    models, not with detections. Any number of threads may observe and drain at once,
    and nobody waits for a lock, but to write to a journal.

    `PEAKHOLD_MAX_CLASSES` (default 100,000), read when an aggregator is made, bounds
    the classes of one window, counted per model, and its models. Names and ids take at
    most 64 MiB of it.

    With a `journal`, what raises a peak is also written there before `observe` returns,
    so that a killed process loses none. Nothing raises because of that;
    `WindowJournal.error` says whether it is whole.

    Args:
        journal: Where the windows are written down; several aggregators may share it.
        about: Stands there with each window, for whoever recovers it; nothing by
            default.
        statistics: Whether windows also count frames and detections, see `statistics`.
            It takes some 200 bytes for each class and model, at most 64 MiB in a
            process: classes beyond that have peaks only, and are counted in `rejected`.
        name: What the log calls the aggregator.

    Raises:
        ValueError: If `PEAKHOLD_MAX_CLASSES` is not a whole number of at least 1.
    """

    def __new__(
        cls,
        *,
        journal: Journal | None = None,
        about: bytes = ...,
        statistics: bool = False,
        name: str = "",
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
        there too, but the row is taken. (Ids and types are only read for new peaks.) A
        confidence outside of [0, 1] is taken as it is, and counted.

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

    def drain(self) -> list[_CountedLine]:
        """Close the window, begin a new one, and return the closed one's report.

        Its journal, if it has one, is removed.

        Returns:
            One line per class, the most confident of all models; `model_type` is the
            prediction type of the detection. Models stand in the order in which the
            window first saw them, and within a model its classes in the order of their
            first detection; a class stands where it first appears in that walk, and
            among equal confidences the first in that walk wins. With statistics, those
            of the class in all models are in its line, and only then.
        """

    def snapshot(self) -> WindowSnapshot:
        """Close the window like `drain`, and return what it held for later use.

        Closing takes as long whatever the window holds; that is only looked at when
        the snapshot is first used. Its journal stays until `WindowJournal.remove`.
        """

    def begin_journals(self, journal: Journal, *, about: bytes = ...) -> None:
        """Have the windows that begin from now on write journals, if none do so far.

        Args:
            journal: As for the constructor.
            about: As for the constructor.
        """

    @property
    def has_statistics(self) -> bool:
        """Whether windows that begin from now on have statistics; may be set.

        The first one with statistics may lack frames that other threads are observing
        while this is set.
        """

    @has_statistics.setter
    def has_statistics(self, statistics: bool, /) -> None: ...
    def statistics(self) -> Statistics | None:
        """Return the statistics of the open window so far; None if it has none."""

    @property
    def peaks(self) -> int:
        """Classes in the open window, counted per model; 0 if nothing was taken."""

    @property
    def rejected(self) -> dict[str, int]:
        """What was skipped or incomplete so far, by reason.

        Rows, or frames where a whole one is skipped. The reasons `class_name_missing`,
        `inference_id_invalid` and `prediction_type_invalid` count rows that were taken,
        with `""` for what is missing or unusable, `confidence_out_of_range` rows that
        were taken as they are, and `statistics_too_large` classes.
        """

    @property
    def rejected_by_model(self) -> dict[str, dict[str, int]]:
        """Likewise, by model and reason, of the first 16 models that had any."""

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
        first sight. The statistics of a window are added once, however often it is
        merged.
        """

    @property
    def is_empty(self) -> bool:
        """Whether it has neither peaks nor, in its statistics, anything at all."""

    @property
    def has_statistics(self) -> bool:
        """Whether it has statistics."""

    @property
    def parts(self) -> dict[str, Statistics]:
        """The statistics of each window in it, by an id that no other window has."""

    def statistics(self) -> Statistics | None:
        """Return those of all of them, added up; None if it has none."""

    def window_json(self, first: int, last: int, /) -> bytes:
        """Return what a peakhold monitor gets of lines of `report`.

        Args:
            first: Number of the first line.
            last: Number of the line after the last one.

        Returns:
            Members of a JSON object, `"peaks"` and `"parts"`, UTF-8; `docs/monitor.md`
            describes them.
        """

    def report(self) -> list[_CountedLine]:
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
    def is_written(self) -> bool:
        """Whether all that the window held is in its journal.

        It is not if writing failed, or as long as somebody who observed when the window
        was closed may still write.
        """

    def with_one_part(self) -> WindowSnapshot:
        """Return one whose statistics are those of one window, without a journal.

        For windows that become one before anybody was told of them: nobody could add
        what one of them has by itself.
        """

    def without_peaks(self) -> WindowSnapshot:
        """Return one with journal and statistics of this one, and nothing else."""

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
class Journal:
    """The journal of the windows of a process: segments of at most 4 MiB.

    One is open at a time, however many windows there are. A forked child needs a
    journal of its own.

    Args:
        directory: Where the segments are; it is made with the first of them. Its parent
            holds the directories of other processes.
        sync: Whether to wait for the disk, so that the loss of power loses none either.
        limit: Bytes of all segments below the parent from which on no more are made.
            Windows go without a journal then.
    """

    def __new__(
        cls, directory: str | PathLike[str], *, sync: bool = False, limit: int = ...
    ) -> Journal: ...
    def commit(self, aggregator: int, window: int) -> None:
        """Note that a window is safe elsewhere, also one of a dead process.

        Args:
            aggregator: Number of its aggregator.
            window: Its number.

        Raises:
            OSError: If that cannot be written.
        """

    @staticmethod
    def keep_statistics(aggregators: list[PeakAggregator], /) -> None:
        """Write down the statistics of open windows, in place of those before.

        They are in a file beside the segments of their journal, `statistics`, which is
        replaced as a whole.

        Args:
            aggregators: Whose windows; those without statistics or journal are left
                out.

        Raises:
            OSError: If that cannot be written.
        """

    def tidy(self) -> None:
        """Copy what open windows have in old segments to new ones if those are many.

        Raises:
            OSError: If files cannot be read or written; nothing is lost then.
        """

    def read(
        self, windows: list[WindowJournal], /
    ) -> tuple[list[tuple[list[_Frame], WindowSnapshot] | None], int]:
        """Read back what windows and batches of this journal have in the segments.

        Args:
            windows: Those looked for.

        Returns:
            For each of them its frames if it is a batch of metadata, and its peaks;
            None if it has nothing there. Then how many stretches of bytes are damaged.

        Raises:
            OSError: If files cannot be read.
        """

@final
class WindowJournal:
    """What a closed window, or a batch of metadata, wrote to the journal."""

    @property
    def name(self) -> str:
        """Directory, number of the aggregator and of the window, joined by `-`."""

    @property
    def error(self) -> str | None:
        """Why writing was given up, None if all is written."""

    @property
    def slow_writes(self) -> int:
        """Writes of the process that took over 5 ms.

        After the first one, `observe` writes without holding the interpreter.
        """

    def close(self, at: int, /) -> bool:
        """Note when the window was closed.

        Args:
            at: Microseconds since 1970.

        Returns:
            Whether the window is in the journal. It is not if nothing was written, or
            the journal was moved by somebody who took it for that of a dead process.

        Raises:
            OSError: If that cannot be written.
        """

    def remove(self) -> None:
        """Note that the window is safe elsewhere.

        What an observer that was slower than the closing writes afterwards goes
        nowhere.

        Raises:
            OSError: If that cannot be written.
        """

@final
class MetadataBatch:
    """Frames whose metadata becomes one request.

    Two of one batch are equal.
    """

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    @property
    def journal(self) -> WindowJournal:
        """What it is to the journal: a window."""

    @property
    def frames(self) -> int | None:
        """How many frames it has; None as long as more may come."""

@final
class MetadataJournal:
    """What frames registered for a destination, on its way to be sent.

    Any number of threads may append. Nothing raises because of the disk;
    `WindowJournal.error` of a batch says whether it is whole.

    Args:
        journal: Where it is written down.
        about: Stands there with each batch, for whoever recovers it.
    """

    def __new__(cls, journal: Journal, *, about: bytes) -> MetadataJournal: ...
    def append(
        self,
        frames: deque[Any],
        inference_ids: list[str],
        field_name: str,
        field_value: str,
        /,
    ) -> None:
        """Write down what a frame registers, and append it to a deque.

        A batch that has ids or bytes for a request ends, and the next one begins.

        Args:
            frames: Gets a tuple: ids, field, value, `MetadataBatch`, and the number of
                the frame in the batch.
            inference_ids: The ids.
            field_name: The field.
            field_value: Its value.
        """

    def cut(self) -> None:
        """End the batch that frames join, so that it can be sent."""

_Frame: TypeAlias = tuple[list[str], str, str]
_Window: TypeAlias = tuple[
    int, int, bytes | None, int | None, list[_Frame], WindowSnapshot
]

def recover_journal(
    segments: list[bytes], statistics: bytes | None = None, /
) -> tuple[list[_Window], int, int]:
    """Read the segments of a process.

    Args:
        segments: The bytes of the files, in whatever state they are.
        statistics: Those of the file of statistics, if there is one; what is damaged or
            of another version is ignored. Statistics that come from it are partial.

    Returns:
        The windows that were not committed, each with the number of its aggregator, its
        own, its `about` (None if that is damaged), when it was closed in microseconds
        since 1970 (None if it was open), the ids, field and value of each of its frames
        if it is a batch of metadata, and its peaks; how many stretches of bytes are
        damaged; how many records are of kinds that this version does not know.

    Raises:
        ValueError: If one is a file of something else or of a later version.
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
