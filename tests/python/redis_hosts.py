"""Processes on several hosts that share windows over a real Redis, on a clock by hand.

The script runs on the server as it is, but for the time, which it reads from two keys.
"""

from __future__ import annotations

import hmac
import json
from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import redis
from stand_ins import window_of

from peakhold.delivery import redis_parts
from peakhold.delivery.exchange import Exchange
from peakhold.delivery.exporter import Exporter
from peakhold.delivery.redis_parts import RedisParts
from peakhold.delivery.redis_url import RedisUrl
from peakhold.notices import Notices
from peakhold.outbox import Limits, Outbox, StateDirectory, outbox
from peakhold.records import DestinationKey, Share, seal_report
from peakhold.records.share import epoch_at

START = 1_000_000.0
"""Wall time at which an epoch of every frequency used here begins."""
TTL = 7 * 24 * 3600.0
HERE = DestinationKey("http://here", "0123456789abcdef")
CLOCK = ("test:seconds", "test:microseconds")
SCRIPT = redis_parts._SCRIPT
_TIME = "local time = redis.call('TIME')"
_AGE = """
for _, key in ipairs(redis.call('KEYS', 'peakhold:*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    redis.call('PEXPIRE', key, left - tonumber(ARGV[1]))
  end
end
"""


class Keyed(Exporter):
    """Whoever sends to a destination with an api key."""

    def __init__(self, destination=HERE, api_key="the api key"):
        self.destination = destination
        self.api_key = api_key

    def export(self, records):
        raise AssertionError("reports are read from the outbox, not sent")

    def sign(self, data):
        return hmac.digest(self.api_key.encode(), data, "sha256")


class Times:
    """The time, which passes by hand, here and at the server; clocks may be apart.

    Attributes:
        now: Monotonic time.
        wall: Seconds since 1970, as all processes have them.
        ahead: Seconds by which the server's clock is ahead.
        server: A client of the server, for what is no process's question.
    """

    def __init__(self, client):
        self.now, self.wall, self.ahead = 1_000.0, START, 0.0
        self.server = client
        self._age = client.register_script(_AGE)
        self.flush()

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds
        self.wall += seconds
        self._tell(seconds)

    def set_server(self, seconds):
        """Set the server's clock forward or back."""
        self.ahead += seconds
        self._tell(seconds)

    def flush(self):
        """Have the server forget everything."""
        self.server.flushall()
        self._tell(0)

    def _tell(self, passed):
        seconds, part = divmod(self.wall + self.ahead, 1)
        self.server.mset(
            dict(zip(CLOCK, (int(seconds), round(part * 1e6)), strict=True))
        )
        if passed:
            self._age(args=[round(passed * 1000)])


def use(monkeypatch, times, change=lambda script: script):
    """Have the package use a time, and the script, maybe changed.

    Args:
        monkeypatch: Pytest's.
        times: The time, or something that has a ``wall``.
        change: Makes another script of it.
    """
    assert _TIME in SCRIPT
    script = SCRIPT.replace(
        _TIME, "local time = redis.call('MGET', '{}', '{}')".format(*CLOCK)
    )
    monkeypatch.setattr(redis_parts, "_SCRIPT", change(script))
    clock = SimpleNamespace(time=lambda: times.wall, sleep=lambda _: None)
    monkeypatch.setattr(outbox, "time", clock)


class Requests:
    """What one exchange asks, which arrives when it does."""

    def __init__(self, line):
        self._line = line
        self.calls = []

    def script_load(self, *arguments):
        self.calls.append(("script_load", arguments))

    def evalsha(self, *arguments):
        self.calls.append(("evalsha", arguments))

    @property
    def deadline(self):
        """Until when they are valid."""
        return min(
            json.loads(arguments[3])["deadline"]
            for name, arguments in self.calls
            if name == "evalsha"
        )

    def arrive(self):
        with self._line.times.server.pipeline(transaction=False) as pipeline:
            for name, arguments in self.calls:
                getattr(pipeline, name)(*arguments)
            return pipeline.execute(raise_on_error=False)

    def execute(self, raise_on_error):
        assert not raise_on_error
        return self._line.passed_on(self)


class Client:
    """A client on a line, whose server has the time of the keys."""

    def __init__(self, line):
        self._line = line

    def time(self):
        self._line.check()
        return tuple(map(int, self._line.times.server.mget(*CLOCK)))

    def pipeline(self, transaction):
        assert not transaction
        return Requests(self._line)


class Line(RedisUrl):
    """The way to a server, on which things get lost.

    Attributes:
        is_cut: Whether nothing passes.
        fates: What becomes of the next requests: ``answered``, ``never`` for one that
            does not arrive, ``lost`` for an answer that does not, ``late`` for a
            request that is kept in ``under_way``. Then all are answered.
        under_way: What arrives later.
        step: Called before and after each request.
    """

    __slots__ = ("fates", "is_cut", "step", "times", "under_way")

    def __init__(self, server, times):
        self.times = times
        self.is_cut = False
        self.fates, self.under_way = deque(), []
        self.step = lambda: None
        super().__init__(server.url)

    def client(self):
        return Client(self)

    def _is_usable(self):
        return True

    def check(self):
        if self.is_cut:
            raise redis.ConnectionError("cut")

    def passed_on(self, requests):
        self.check()
        self.step()
        fate = self.fates.popleft() if self.fates else "answered"
        replies = None
        if fate in ("answered", "lost"):
            replies = requests.arrive()
        elif fate == "late":
            self.under_way.append(requests)
        self.step()
        if fate != "answered":
            raise redis.TimeoutError(fate)
        return replies


class SteppedOutbox(Outbox):
    """An outbox that tells before and after each transaction of an exchange."""

    step = staticmethod(lambda: None)

    def offer_parts(self, *arguments):
        return self._stepped(super().offer_parts, *arguments)

    def settle_parts(self, *arguments):
        return self._stepped(super().settle_parts, *arguments)

    def close_epochs(self, *arguments, **options):
        return self._stepped(super().close_epochs, *arguments, **options)

    def _stepped(self, act, *arguments, **options):
        self.step()
        result = act(*arguments, **options)
        self.step()
        return result


class Process:
    """One that shares: its outbox, and its exchange over a line of its own."""

    numbers = iter(range(10**9))

    def __init__(self, directory, line, times, exporters=None):
        """Start one.

        Args:
            directory: Its state directory, which is that of its host.
            line: Where the server is, a ``Line`` or another ``RedisUrl``.
            times: The time.
            exporters: Who send its reports.
        """
        self.state = StateDirectory(directory)
        self.notices = Notices(times)
        self.line = line
        self.times = times
        self.exporters = {each.destination: each for each in exporters or [Keyed()]}
        self.outbox = SteppedOutbox(
            self.notices,
            Limits(ttl=TTL),
            self.state,
            clock=times,
            place=line.place,
        )
        self.exchange = Exchange(
            RedisParts(line, TTL),
            self.outbox,
            self.notices,
            times,
            lambda: self.state.owner_id,
        )

    def seal(self, *records):
        self.outbox.add_parts(records)
        self.check()
        return records

    def turn(self, *, leaving=False):
        closed, wait = self.exchange.turn(self.exporters, leaving=leaving)
        self.check()
        return closed, wait

    def deliver(self, destination=HERE):
        """Deliver the oldest report; returns its id and its body, or None."""
        record = self.outbox.lease(destination, "report")
        if record is None:
            return None
        self.outbox.acknowledge(record)
        return record.id, json.loads(record.body)

    def reports(self, destination=HERE):
        """Deliver everything; returns the classes of each report."""
        found = []
        while delivered := self.deliver(destination):
            found.append(names_in(delivered[1]))
        return found

    def upkeep(self):
        self.outbox.tend(list(self.exporters))
        self.check()

    def check(self):
        assert self.outbox.disk_error is None

    @property
    def parts(self):
        """Whether it has parts for the server."""
        return self.outbox.has_parts()

    def end(self):
        self.outbox._disk.close()
        self.state.release()


def part(*names, frequency=5, epoch=None, wall=START, key="k", destination=HERE):
    """A part of an epoch, that which runs unless it is said; has classes of 0.5."""
    epoch = epoch_at(wall, frequency) if epoch is None else epoch
    ended = datetime(2026, 1, 1) + timedelta(seconds=epoch * frequency - START)  # noqa: DTZ001
    record = seal_report(destination, key, window_of(dict.fromkeys(names, 0.5)), ended)
    share = Share(key, None, frequency, epoch)
    return replace(record, id=f"{next(Process.numbers):016x}-0-1", share=share)


def names_in(body):
    return {each["class_name"] for each in body["inference_results"]}
