"""Reading statistics back over the API, and comparing them with what was sent."""

from __future__ import annotations

import http.client
import json
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from peakhold.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peakhold.cli.metering import Ledger

_TIMEOUT = 10.0


@dataclass(frozen=True)
class Stored:
    """What the monitor has stored.

    Attributes:
        statistics: Its answer to the statistics call.
        reports: Reports.
        metadata_ids: Inference ids that have metadata.
    """

    statistics: Mapping[str, Any]
    reports: int
    metadata_ids: int


def get_statistics(
    url: str, workspace: str, api_key: str, start: datetime, end: datetime
) -> dict[str, Any]:
    """Make the statistics call of the API.

    Args:
        url: Address of a monitor on this machine.
        workspace: The workspace.
        api_key: The key.
        start: Start of the period, UTC; rounded down to a second.
        end: End of the period, UTC; rounded up.

    Raises:
        CommandError: There was no answer, or one that is no success.
    """
    query = urlencode(
        {
            "api_key": api_key,
            "startTime": _timestamp(start),
            "endTime": _timestamp(end + timedelta(seconds=1)),
        }
    )
    parts = urlsplit(url)
    # No proxy stands between this process and a server inside it.
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=_TIMEOUT
    )
    try:
        path = f"/{quote(workspace, safe='')}/inference-stats?{query}"
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise CommandError(f"no statistics from {url}: {error}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise CommandError(f"{url} answered the statistics call with {answer.status}")
    statistics: dict[str, Any] = json.loads(body)
    return statistics


def disagreements(
    stored: Stored,
    ledger: Ledger,
    peaks: Mapping[tuple[str, str], float],
    inferences: int,
) -> list[str]:
    """Compare what was read back with what was sent and with what was replayed.

    Args:
        stored: What was read back.
        ledger: What was sent.
        peaks: The highest confidence replayed, by project and class name.
        inferences: Predictions replayed, each of which got metadata.

    Returns:
        One sentence for each thing that is not as it should be.
    """
    found = []
    if stored.reports != ledger.reports:
        found.append(f"{ledger.reports} reports sent, {stored.reports} stored")
    if not stored.metadata_ids == ledger.metadata_ids == inferences:
        found.append(
            f"{inferences} inferences replayed, metadata sent for "
            f"{ledger.metadata_ids} and stored for {stored.metadata_ids}"
        )
    rows = {
        (row["model_name"], row["predicted_class"]): row
        for row in stored.statistics["inference_stats"]
    }
    for key in sorted(rows.keys() | ledger.classes.keys() | peaks.keys()):
        row, sent = rows.get(key), ledger.classes.get(key)
        name = " ".join(key)
        if row is None or sent is None or key not in peaks:
            where = [
                place
                for place, there in (
                    ("replayed", key in peaks),
                    ("sent", sent is not None),
                    ("stored", row is not None),
                )
                if there
            ]
            found.append(f"{name}: only {' and '.join(where)}")
            continue
        if row["num_inferences"] != sent.count:
            found.append(f"{name}: {sent.count} sent, {row['num_inferences']} stored")
        average = sent.total / sent.count
        # Summed in another order over there, hence not to the last bit.
        if not math.isclose(row["avg_confidence"], average, rel_tol=1e-9):
            found.append(
                f"{name}: average {average} sent, {row['avg_confidence']} stored"
            )
        if not row["max_confidence"] == sent.maximum == peaks[key]:
            found.append(
                f"{name}: peak {peaks[key]} replayed, {sent.maximum} sent, "
                f"{row['max_confidence']} stored"
            )
    return found


def _timestamp(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
