"""Let everything go wrong with a canary for a key, and log all there is to log."""

from __future__ import annotations

import dataclasses
import http.client
import io
import logging
import os
import pickle
import sys
import time
import traceback

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)

from common import frame, say  # noqa: E402 - logged from the first import on
from mutant import MUTANT  # noqa: E402
from prometheus_client import generate_latest  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.traceback import Traceback  # noqa: E402

import peakhold  # noqa: E402
from peakhold.blocks.cache import SHARED  # noqa: E402
from peakhold.delivery import Sender, current  # noqa: E402
from peakhold.delivery.redis_parts import RedisParts  # noqa: E402
from peakhold.delivery.redis_url import RedisUrl  # noqa: E402
from peakhold.delivery.settings import DeliverySettings  # noqa: E402
from peakhold.metrics import prometheus  # noqa: E402
from peakhold.outbox import packing, store  # noqa: E402
from peakhold.roboflow import RoboflowClient, Settings  # noqa: E402

if MUTANT == "log_the_url":
    from peakhold.roboflow import transport

    transport.redact = lambda text, *_: text
    logging.getLogger("peakhold").warning("asking %s?api_key=%s", *sys.argv[1:3])
if MUTANT == "store_the_key":
    _pack = packing.pack
    store.pack = lambda content: _pack(content + sys.argv[2].encode())
if MUTANT == "bring_the_frames":
    for kind in (RoboflowClient, Sender):
        for name, member in list(vars(kind).items()):
            if hasattr(member, "__wrapped__"):
                setattr(kind, name, member.__wrapped__)
if MUTANT == "show_the_redis":
    RedisUrl.__repr__ = lambda self: self._text
if MUTANT == "tell_what_redis_said":
    RedisParts.deadline = RedisParts.deadline.__wrapped__
    RedisUrl.client = RedisUrl.client.__wrapped__

CANARY = sys.argv[2]


def show(*values):
    """Log what a careless program might."""
    logging.getLogger("program").debug("%s", values)


def press_ctrl_c(*_args, **_kwargs):
    raise KeyboardInterrupt


def look_up():
    client.get_roboflow_workspace(CANARY)


def attach():
    metadata.run(
        fire_and_forget=False,
        field_name="f",
        field_value="v",
        predictions={"inference_id": "i"},
    )


def show_frames_of(call):
    """Log what error trackers make of a call that fails, local variables included."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt as well
        plain = traceback.TracebackException.from_exception(error, capture_locals=True)
        console = Console(file=io.StringIO(), width=500)
        console.print(
            Traceback.from_exception(
                type(error), error, error.__traceback__, show_locals=True, width=500
            )
        )
        show("".join(plain.format()), console.file.getvalue())


def show_pickle_of(value):
    try:
        show(pickle.dumps(value))
    except TypeError as error:
        show(str(error))


def ask_redis():
    RedisParts(current().settings.redis, 1.0).deadline()


def misread_the_url():
    os.environ["PEAKHOLD_SHARE"] += "&unknown=option"
    DeliverySettings.from_environment()


current().jitter = lambda _low, _high: 0.01
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
show_frames_of(look_up)
settings = current().settings
show(repr(settings), vars(settings), dataclasses.asdict(settings))
prometheus.register()
show(generate_latest().decode())
if settings.redis is not None:
    show_frames_of(ask_redis)
    show_frames_of(misread_the_url)
http.client.HTTPConnection.endheaders = press_ctrl_c
show_frames_of(look_up)
show_frames_of(attach)
keeper = RoboflowClient(Settings(api_key=CANARY))
for value in (
    keeper,
    keeper.settings,
    client,
    aggregator,
    metadata,
    aggregator._sender,
    settings,
    settings.redis,
    current(),
):
    show_pickle_of(value)
    show(getattr(value, "__dict__", value))
show(dataclasses.asdict(keeper.settings))
say("done")
