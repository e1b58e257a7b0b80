"""The summary of a replay, as tables or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peakhold.cli.terminal import print_table, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peakhold.cli.metering import Ledger
    from peakhold.cli.player import Player
    from peakhold.cli.session import Settled


def summarise(player: Player, ledger: Ledger, settled: Settled) -> dict[str, Any]:
    """Put all figures together; times are seconds, durations of run() microseconds."""
    tally = player.tally
    seconds = max(tally.seconds, 1e-9)
    counts = settled.counts
    return {
        "frames": tally.frames,
        "predictions": tally.predictions,
        "detections": tally.detections,
        "seconds": round(tally.seconds, 3),
        "frames_per_second": round(tally.frames / seconds, 1),
        "detections_per_second": round(tally.detections / seconds, 1),
        "reports_sent": ledger.reports,
        "metadata_requests": ledger.metadata_requests,
        "metadata_ids": ledger.metadata_ids,
        "complete": settled.complete,
        "pending": counts.pending + counts.parked,
        "dead": counts.dead,
        "dropped": counts.dropped,
        "failed_attempts": dict(ledger.failures),
        "error_answers": dict(tally.errors),
        "rejected": player.rejected,
        "run_us": {
            "model_monitoring": asdict(player.reporting.summary()),
            "custom_metadata": asdict(player.registering.summary()),
        },
    }


def print_json(summary: Mapping[str, Any]) -> None:
    """Print the summary as one JSON object."""
    say(json.dumps(summary, indent=2))


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the summary as tables."""
    print_table(
        "Replay",
        ("", ">"),
        [
            ("frames", f"{summary['frames']:,}"),
            ("detections", f"{summary['detections']:,}"),
            ("seconds", f"{summary['seconds']:,.2f}"),
            ("frames per second", f"{summary['frames_per_second']:,.0f}"),
            ("detections per second", f"{summary['detections_per_second']:,.0f}"),
            ("reports sent", f"{summary['reports_sent']:,}"),
            ("metadata requests", f"{summary['metadata_requests']:,}"),
            ("inference ids in them", f"{summary['metadata_ids']:,}"),
            *_reasons("failed attempt: ", summary["failed_attempts"]),
            *_reasons("error answer: ", summary["error_answers"]),
            *_reasons("rejected: ", summary["rejected"]),
            *_reasons(
                "", {"refused for good": summary["dead"]} if summary["dead"] else {}
            ),
            *_reasons("dropped: ", summary["dropped"]),
            ("everything delivered", "yes" if summary["complete"] else "no"),
        ],
    )
    print_latency(summary)


def print_latency(summary: Mapping[str, Any]) -> None:
    """Print how long run() of each sink took."""
    print_table(
        "run() in microseconds",
        ("sink", ">calls", ">p50", ">p99", ">max"),
        [
            (
                name.replace("_", " "),
                f"{figures['calls']:,}",
                f"{figures['p50']:,.1f}",
                f"{figures['p99']:,.1f}",
                f"{figures['maximum']:,.0f}",
            )
            for name, figures in summary["run_us"].items()
        ],
    )


def _reasons(prefix: str, reasons: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(prefix + reason, f"{count:,}") for reason, count in reasons.items()]
