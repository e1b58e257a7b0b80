"""Check of shared windows: who shares them, what waits, and the Redis server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from peakhold.cli.errors import CommandError
from peakhold.cli.findings import Finding, fail, ok, warn
from peakhold.cli.looking import delivery_settings
from peakhold.delivery.settings import SHARED, NoStateDirectoryError
from peakhold.outbox import StateDirectory, admin
from peakhold.records.share import grace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peakhold.delivery.redis_url import RedisUrl
    from peakhold.delivery.settings import DeliverySettings

CHECK = "sharing"
SERVER = "redis"
_OLDEST = (6, 2)
"""Version of Redis from which on it has all that is used."""
_APART = grace(1) / 2
"""Seconds that the clocks of this host and of the server may be apart: a process may
seal its part up to half the grace after the end of an epoch."""


def check_sharing() -> Iterator[Finding]:
    """Yield what is found about shared windows; nothing if there are none."""
    try:
        settings = delivery_settings()
        state = StateDirectory(settings.directory())
        shared = admin.status(state)["sharing"] if state.has_outbox() else []
    except (CommandError, NoStateDirectoryError, admin.OutboxError, OSError):
        return  # which the outbox's own check has told
    if settings.share in SHARED and settings.durability == "memory":
        yield warn(
            CHECK,
            f"PEAKHOLD_SHARE is {settings.share}, and PEAKHOLD_DURABILITY is memory: "
            "each process reports windows of its own",
            "set PEAKHOLD_DURABILITY to process",
        )
    elif settings.share in SHARED or shared:
        yield _shared_windows(shared, settings)
    if settings.redis is not None:
        yield _server(settings.redis)


def _shared_windows(
    shared: Sequence[Mapping[str, Any]], settings: DeliverySettings
) -> Finding:
    names = ("endpoint", "api_key_fingerprint", "client", "aggregator_key", "feed")
    frequencies: dict[tuple[object, ...], set[int]] = {}
    for each in shared:
        key = tuple(each[name] for name in names)
        frequencies.setdefault(key, set()).add(each["frequency"])
    most = max((each["processes"] for each in shared), default=0)
    waiting, late = (sum(each[name] for each in shared) for name in ("parts", "late"))
    found = (
        f"{len(shared):,} windows are shared by up to {most:,} running processes of "
        f"this host; {waiting:,} parts wait, {late:,} came late"
    )
    for key, its in frequencies.items():
        if len(its) > 1:
            return warn(
                CHECK,
                f"{found}; window {key[3]} has frequencies of "
                f"{' and '.join(map(str, sorted(its)))} s, which are two windows",
                "give all its blocks the same frequency",
            )
    for each in shared:
        if each["parts"] and each["share"] != settings.share:
            return warn(
                CHECK,
                f"{found}; some are shared by PEAKHOLD_SHARE={each['share']}, which is "
                "not what is set here",
                f"export PEAKHOLD_SHARE={each['share']}, or with the URL that the "
                "program has, unless that is meant",
            )
    return ok(CHECK, found)


def _server(url: RedisUrl) -> Finding:
    """Return what is found about the server; nothing is written there."""
    try:
        client = url.client()
        before = time.time()
        seconds, microseconds = client.time()
        here = (before + time.time()) / 2
        server: dict[str, Any] = client.info("server")
        memory: dict[str, Any] = client.info("memory")
    except Exception as error:  # noqa: BLE001 - redis-py raises many kinds
        return fail(
            SERVER,
            f"{url} gives no answer ({url.describe(error)}); each process reports its "
            "own parts meanwhile",
            "start it, or correct PEAKHOLD_SHARE",
        )
    version = str(server.get("redis_version", ""))
    numbers = tuple(int(each) for each in version.split(".")[:2] if each.isdigit())
    if numbers < _OLDEST:
        return fail(
            SERVER, f"{url} has version {version}", "use Redis 6.2 or later, or Valkey"
        )
    apart = seconds + microseconds / 1e6 - here
    if abs(apart) > _APART:
        return warn(
            SERVER,
            f"{url} has a clock that is {abs(apart):.1f} s "
            f"{'ahead of' if apart > 0 else 'behind'} that of this host, whose parts "
            "may miss their epoch",
            "synchronize the clocks",
        )
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        return warn(
            SERVER,
            f"{url} deletes keys when its memory is full ({policy}); parts would be "
            "offered again, and may be in two reports",
            "set its maxmemory-policy to noeviction",
        )
    return ok(SERVER, f"{url} answers, version {version}, and deletes no keys")
