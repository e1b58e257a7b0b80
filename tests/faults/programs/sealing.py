"""Seal window after window, and tell each when it is committed."""

from __future__ import annotations

import itertools
import os
import random
import time
import uuid
from dataclasses import replace
from functools import partial

from common import KEY, frame, say
from mutant import MUTANT

from peakhold import PeakAggregator
from peakhold.blocks.cache import SHARED
from peakhold.delivery import Sender, current, redis_parts
from peakhold.delivery.destination import Destination
from peakhold.outbox import offers, outbox, ownership, store
from peakhold.records import seal_report
from peakhold.roboflow import RoboflowClient

_lease, _add = store.Store.lease, outbox.Outbox.add
_export = Destination.export
_settle = offers.settle


def take_before_send(self, batch, exporter=None):
    """Forget records before they are sent."""
    for each in batch:
        self._outbox.acknowledge(each.record)
    return _export(self, batch, exporter)


def lease_from_the_living(self, destination, kind):
    """Lease what another process may be sending."""
    owner = (self._database.owner,)
    self.transaction(lambda it: it.execute("UPDATE records SET owner = ?", owner))
    return _lease(self, destination, kind)


def tell_before_commit(self, records, **options):
    """Tell of a commit, and make it then."""
    for record in records:
        if record.on_committed:
            record.on_committed()
    time.sleep(0.005)
    return _add(
        self, [replace(record, on_committed=None) for record in records], **options
    )


def settle_what_is_there(database, owner, now, answers):
    """Give parts away as soon as Redis has them."""
    told = [each._replace(fates=["reported"] * len(each.fates)) for each in answers]
    return _settle(database, owner, now, told)


def is_waiting(database, record, **_):
    """Know a record only for as long as it waits."""
    found = database.execute("SELECT 1 FROM records WHERE id = ?", (record.id,))
    return found.fetchone() is not None


if MUTANT == "keep_journals_and_forget":
    ownership.was_added = is_waiting
if MUTANT == "take_before_send":
    Destination.export = take_before_send
if MUTANT == "tell_before_commit":
    outbox.Outbox.add = tell_before_commit
if MUTANT == "no_owner":
    store.Store.lease = lease_from_the_living
if MUTANT == "report_ids_of_chance":
    uuid.uuid5 = lambda *_: uuid.uuid4()
if MUTANT == "keep_no_part":
    offers.settle = settle_what_is_there
if MUTANT == "forget_ids":  # of parts that are in a report
    known = "if redis.call('ZSCORE', REPORTED, id)"
    assert known in redis_parts._SCRIPT
    redis_parts._SCRIPT = redis_parts._SCRIPT.replace(
        known, f"{known} and not has_value"
    )
redis_parts.LEASE = int(os.environ.get("PEAKHOLD_TEST_LEASE", redis_parts.LEASE))
if MUTANT == "new_id":  # for each attempt
    _send = Sender.send
    Sender.send = lambda self, record, workspace: _send(
        self, replace(record, id=os.urandom(8).hex()), workspace
    )


def prepare():
    """Return the process's dispatcher, which pauses shortly, and a sender."""
    dispatcher = current()
    dispatcher.jitter = lambda _low, _high: 0.02
    return dispatcher, Sender(RoboflowClient(), KEY, SHARED, injected=False)


def seal(sender, name):
    """Return the record of a window of one class, which tells when it is committed."""
    window = PeakAggregator()
    window.observe(frame(name), "m/1")
    committed = partial(say, "committed", name)
    record = seal_report(sender.destination, name, window.snapshot())
    return replace(record, on_committed=committed)


def work(number):
    """Seal windows until killed, or until nobody is left to kill."""
    parent = os.getppid()
    dispatcher, sender = prepare()
    pauses = random.Random(number)
    for window in itertools.count():
        if os.getppid() != parent:
            return
        dispatcher.deliver(seal(sender, f"{number}-{window}"), sender)
        time.sleep(pauses.uniform(0, 0.03))
