"""Let everything go wrong with a canary for a key, and log all there is to log."""

from __future__ import annotations

import logging
import sys
import time
import traceback

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)

from common import frame, say  # noqa: E402 - logged from the first import on
from mutant import MUTANT  # noqa: E402

import peakhold  # noqa: E402
from peakhold.blocks.cache import SHARED  # noqa: E402
from peakhold.delivery import current  # noqa: E402
from peakhold.outbox import packing, rows  # noqa: E402

if MUTANT == "log_the_url":
    from peakhold.roboflow import transport

    transport.redact = lambda text, *_: text
    logging.getLogger("peakhold").warning("asking %s?api_key=%s", *sys.argv[1:3])
if MUTANT == "store_the_key":
    _pack = packing.pack
    rows.pack = lambda body: _pack(body + sys.argv[2].encode())

CANARY = sys.argv[2]


def show(*values):
    """Log what a careless program might."""
    logging.getLogger("program").debug("%s", values)


current()._lanes._jitter = lambda _low, _high: 0.01
aggregator = peakhold.ModelMonitoringInferenceAggregatorBlockV1(api_key=CANARY)
metadata = peakhold.RoboflowCustomMetadataBlockV1(api_key=CANARY)
for number in range(int(sys.argv[3])):
    for forget in (True, False):
        key = f"k{number}-{forget}"
        SHARED.set(
            "workflows:steps_cache:roboflow_core/model_monitoring_inference_aggregator"
            f"@v1:{key}:last_report_time",
            "2001-02-03T04:05:06",
        )
        show(
            aggregator.run(
                fire_and_forget=forget,
                predictions=frame(f"c{number}"),
                frequency=1,
                unique_aggregator_key=key,
                model_id="m/1",
            ),
            metadata.run(
                fire_and_forget=forget,
                field_name="f",
                field_value=f"v{number}",
                predictions={"inference_id": f"i{number}"},
            ),
        )
    time.sleep(0.05)
client = aggregator._sender.client
try:
    client.get_roboflow_workspace(CANARY)
except peakhold.PeakholdError as error:
    while error is not None:
        show(repr(error), str(error), vars(error))
        traceback.print_exception(error, file=sys.stderr)
        error = error.__cause__ or error.__context__
show(repr(client), repr(aggregator._sender), peakhold.health())
say("done")
