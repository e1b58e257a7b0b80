"""What open windows did not take, and whose it was."""

from __future__ import annotations

from collections import Counter
from heapq import nlargest
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MOST = 10
"""Windows and models that are named for a reason."""


class Rejection(NamedTuple):
    """What an open window did not take, or not whole.

    Attributes:
        window: What people call it.
        model_id: Whose detections they were; None of models beyond the first 16.
        reason: Why.
        rows: How many.
    """

    window: str
    model_id: str | None
    reason: str
    rows: int


def by_reason(
    rejections: Iterable[Rejection], ids: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Return how many there are for each reason, and where most of them are.

    Args:
        rejections: Those of the open windows.
        ids: Inference ids that could not be read, by reason.
    """
    counts = Counter(ids)
    parts: dict[str, list[Rejection]] = {reason: [] for reason in counts}
    for each in rejections:
        counts[each.reason] += each.rows
        parts.setdefault(each.reason, []).append(each)
    return {
        reason: {
            "count": counts[reason],
            "by": [
                {"window": each.window, "model_id": each.model_id, "count": each.rows}
                for each in nlargest(_MOST, of_reason, key=attrgetter("rows"))
            ],
        }
        for reason, of_reason in parts.items()
    }
