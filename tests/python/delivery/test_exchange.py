"""What processes of several hosts tell a Redis server, and what it has them do."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
import redis
import redis_hosts
from redis_hosts import HERE, START, Keyed, Line, Process, Times, part
from redis_server import PROGRAM, WITHOUT, RedisServer
from stand_ins import conserved

from peakhold.delivery import exchange, redis_parts
from peakhold.delivery.redis_url import RedisUrl
from peakhold.outbox import offers
from peakhold.records import DestinationKey
from peakhold.records.share import epoch_at

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=WITHOUT)
RUNNING = epoch_at(START, 5)
OVER = 6.25
"""Seconds from START until the epoch that ran then may be closed."""


@pytest.fixture(scope="module")
def running():
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running):
    """Asks the server."""
    with redis.Redis("127.0.0.1", running.port) as client:
        yield client


@pytest.fixture
def times(server, monkeypatch):
    times = Times(server)
    redis_hosts.use(monkeypatch, times)
    return times


@pytest.fixture
def host(running, times, tmp_path):
    """Makes processes, each on a host of its own."""
    made = []

    def make(name=None, **options):
        directory = tmp_path / (name or f"host-{len(made)}")
        made.append(Process(directory, Line(running, times), times, **options))
        return made[-1]

    yield make
    for process in made:
        process.end()


def the_key(server, suffix):
    (key,) = server.keys(f"peakhold:*:{suffix}")
    return key


# An epoch ---------------------------------------------------------------------


def test_parts_of_two_hosts_are_one_report(host, times):
    one, other = host(), host()
    one.seal(part("a", "b"))
    other.seal(part("b", "c"))
    assert one.turn() == ([], pytest.approx(OVER))
    assert other.turn() == ([], pytest.approx(OVER))
    times.pass_by(OVER - 0.01)
    assert one.turn()[0] == []
    times.pass_by(0.01)
    ((destination, share),), _ = other.turn()
    assert (destination, share.epoch, share.frequency) == (HERE, RUNNING, 5)
    assert one.turn()[0] == []
    assert (one.reports(), other.reports()) == ([], [{"a", "b", "c"}])
    for process in (one, other):
        assert not process.parts
        counts = process.outbox.counts()
        assert conserved(counts)
        assert counts.pending == 0
    assert one.outbox.sharing["reports"] == 0
    assert other.outbox.sharing["reports"] == 1


def test_the_report_is_the_same_whoever_makes_it(
    running, server, monkeypatch, tmp_path
):
    records, made = (part("a", "b"), part("b", "c")), []
    for first in (0, 1):
        times = Times(server)
        redis_hosts.use(monkeypatch, times)
        hosts = [
            Process(tmp_path / f"{first}-{at}", Line(running, times), times)
            for at in range(2)
        ]
        for at in (first, 1 - first):
            hosts[at].seal(records[at])
            hosts[at].turn()
        times.pass_by(OVER)
        hosts[first].turn()
        made.append(hosts[first].deliver())
        for each in hosts:
            each.end()
    assert made[0] == made[1]
    assert redis_hosts.names_in(made[0][1]) == {"a", "b", "c"}


def test_windows_that_differ_in_anything_are_not_shared(host, times):
    there = DestinationKey("http://there", HERE.api_key_fingerprint)
    process = host(exporters=[Keyed(), Keyed(there)])
    process.seal(
        part("a"),
        part("b", key="another"),
        part("c", frequency=1),
        part("d", destination=there),
    )
    process.turn()
    times.pass_by(OVER)
    process.turn()
    assert sorted(map(sorted, process.reports())) == [["a"], ["b"], ["c"]]
    assert process.reports(there) == [{"d"}]


def test_parts_of_a_destination_without_a_sender_wait(host, times):
    process = host()
    there = DestinationKey("http://there", HERE.api_key_fingerprint)
    process.seal(part("a", destination=there))
    assert process.turn() == ([], None)
    assert process.parts
    process.exporters[there] = Keyed(there)
    process.turn()
    times.pass_by(OVER)
    process.turn()
    assert process.reports(there) == [{"a"}]


def test_a_part_that_comes_late_goes_into_the_epoch_that_runs(host, times):
    one, other = host(), host()
    one.seal(part("a"))
    one.turn()
    times.pass_by(OVER)
    one.turn()
    other.seal(part("b", epoch=RUNNING))
    assert other.turn()[0] == []
    assert other.outbox.sharing["late"] == 1
    times.pass_by(5)
    ((_, share),), _ = other.turn()
    assert share.epoch == RUNNING + 1
    assert (one.reports(), other.reports()) == ([{"a"}], [{"b"}])


def test_a_part_of_the_future_goes_into_the_epoch_that_runs(host, times):
    process = host()
    process.seal(part("a", epoch=RUNNING + 700, wall=START))
    process.turn()
    times.pass_by(OVER)
    ((_, share),), _ = process.turn()
    assert share.epoch == RUNNING


def test_several_epochs_are_reported_one_after_the_other(host, times):
    process = host()
    for _ in range(3):
        process.seal(part("a", wall=times.wall))
        process.turn()
        times.pass_by(5)
    times.pass_by(5)
    closed, _ = process.turn()
    found = [share.epoch for _, share in closed]
    assert found == sorted(found)
    assert sum(map(len, process.reports())) == 3


def test_a_closer_that_dies_is_followed_by_another_with_the_same_report(host, times):
    one, other = host(), host()
    one.seal(part("a"))
    other.seal(part("b"))
    one.turn(), other.turn()
    times.pass_by(OVER)
    one.line.fates.append("lost")  # the epoch is its own, and it does not hear it
    assert one.turn()[0] == []
    assert other.turn() == ([], 0.5)
    times.pass_by(redis_parts.LEASE - 1)
    other.turn()
    assert other.reports() == []
    times.pass_by(2)
    assert other.turn()[0]
    assert other.reports() == [{"a", "b"}]
    assert one.turn()[0] == []
    assert not one.parts


def test_what_a_report_has_is_told_though_the_first_telling_got_lost(host, times):
    one, other = host(), host()
    one.seal(part("a"))
    other.seal(part("b"))
    one.turn(), other.turn()
    times.pass_by(OVER)
    one.line.fates.extend(["answered", "never"])
    one.turn()
    delivered = one.reports()
    times.pass_by(1)
    one.turn()
    times.pass_by(redis_parts.LEASE + 1)
    other.turn(), one.turn()
    assert delivered + one.reports() + other.reports() == [{"a", "b"}]


# Leaving ----------------------------------------------------------------------


def test_the_last_one_to_leave_reports_at_once(host):
    one, other = host(), host()
    one.seal(part("a"))
    other.seal(part("b"))
    one.turn(), other.turn()
    assert one.turn(leaving=True)[0] == []  # for the other one shares
    assert other.turn(leaving=True)[0]
    assert other.reports() == [{"a", "b"}]
    one.turn()
    assert not one.parts


def test_what_the_last_one_has_no_part_of_it_reports_once(host, times):
    one, other = host("one"), host()
    times.pass_by(4.9)
    other.seal(part("b"))
    other.turn()
    times.pass_by(2)
    other.turn()
    assert other.reports() == [{"b"}]
    one.seal(part("a", wall=times.wall))
    one.turn(leaving=True)
    one.end()
    other.turn(leaving=True)
    assert other.reports() == [{"a"}]
    times.pass_by(redis_parts.LEASE + 1)
    again = host("one")
    again.upkeep()
    again.turn()
    assert again.reports() == []
    assert not again.parts


def test_nobody_leaves_a_part_to_one_that_does_not_ask_any_more(host, times):
    one, other = host(), host()
    one.seal(part("a"))
    one.turn()
    wait = OVER
    while wait is not None:  # until it has nothing to ask any more
        times.pass_by(wait)
        _, wait = one.turn()
    assert one.reports() == [{"a"}]
    other.seal(part("b", wall=times.wall))
    other.turn(leaving=True)
    assert other.reports() == [{"b"}]


def test_who_shares_asks_once_more_after_others_have_left(host, times):
    one, other = host(), host()
    times.pass_by(4.9)
    one.seal(part("a"))
    one.turn()
    times.pass_by(1.4)
    _, wait = one.turn()
    assert one.reports() == [{"a"}]
    other.seal(part("b", wall=times.wall))
    other.turn(leaving=True)
    assert other.reports() == []
    while wait is not None:
        times.pass_by(wait)
        _, wait = one.turn()
    assert one.reports() == [{"b"}]


def test_a_process_that_goes_on_after_it_left_shares_again(host, times):
    one, other = host(), host()
    other.seal(part("b"))
    other.turn()
    one.seal(part("a"))
    one.turn(leaving=True)
    one.seal(part("c"))
    one.turn()
    times.pass_by(OVER)
    one.turn()
    assert one.reports() == [{"a", "b", "c"}]


# Parts that nobody signed -----------------------------------------------------


@pytest.mark.parametrize("value", [b"", b"short", b"x" * 400])
def test_a_part_that_somebody_wrote_over_is_offered_again(value, host, times, server):
    one, other = host(), host()
    one.seal(part("a"))
    (mine,) = other.seal(part("b"))
    one.turn(), other.turn()
    server.hset(the_key(server, "parts:*"), mine.id, value)
    times.pass_by(OVER)
    one.turn()
    assert one.reports() == [{"a"}]
    other.turn()
    assert other.outbox.sharing["unsure"] == 1
    times.pass_by(5)
    other.turn()
    assert other.reports() == [{"b"}]


def test_a_part_that_somebody_made_up_is_in_no_report(host, times, server):
    process = host()
    process.seal(part("a"))
    process.turn()
    server.hset(the_key(server, "parts:*"), "made-up", b"x" * 400)
    times.pass_by(OVER)
    process.turn()
    assert process.reports() == [{"a"}]
    assert server.keys("peakhold:*:parts:*") == []


def test_another_api_key_meets_another_window_and_signs_in_vain(host, times, server):
    foreign = Keyed(api_key="another one")
    one, other = host(), host(exporters=[foreign])
    (mine,) = one.seal(part("a"))
    other.seal(part("b"))
    one.turn()
    key = the_key(server, "parts:*")
    other.turn()
    (its_key,) = set(server.keys("peakhold:*:parts:*")) - {key}
    ((part_id, value),) = server.hgetall(its_key).items()
    server.hset(key, part_id, value)
    server.hset(key, mine.id, value)
    times.pass_by(OVER)
    assert one.turn()[0] == []  # an epoch of nothing is none
    assert one.reports() == []
    assert one.outbox.sharing["reports"] == 0
    times.pass_by(5)
    one.turn()
    assert one.reports() == [{"a"}]


def test_a_damaged_part_that_two_have_found_is_offered_again_once(host, times, server):
    one, other, owner = host(), host(), host()
    for process, name in ((one, "a"), (other, "b")):
        process.seal(part(name))
        process.turn()
    (record,) = owner.seal(part("c"))
    owner.turn()
    server.hset(the_key(server, "parts:*"), record.id, b"damaged")
    times.pass_by(OVER)
    other.line.fates.extend(["answered", "late"])  # it tells later what it found
    other.turn()
    times.pass_by(1)
    owner.turn()
    other.turn()
    owner.turn()  # offers it again
    requests = other.line.under_way.pop()
    requests.arrive()
    owner.turn()
    assert owner.outbox.sharing["unsure"] == 1
    for _ in range(3):
        times.pass_by(5)
        owner.turn()
    made = one.reports() + other.reports() + owner.reports()
    assert sorted(map(sorted, made)) == [["a", "b"], ["c"]]


# Requests that come late, or twice --------------------------------------------


def test_a_request_that_comes_too_late_does_nothing(host, times, server):
    process = host()
    process.seal(part("a"))
    process.line.fates.append("late")
    process.turn()
    times.pass_by(redis_parts.VALID + 0.1)
    (requests,) = process.line.under_way
    _, reply = requests.arrive()
    assert "STALE" in str(reply)
    assert server.keys("peakhold:*") == []


def test_a_request_that_comes_twice_is_harmless(host, times):
    process = host()
    process.seal(part("a"))
    process.line.fates.append("late")
    process.turn()
    process.turn()
    times.pass_by(OVER)
    process.turn()
    assert process.reports() == [{"a"}]
    times.pass_by(20)
    (requests,) = process.line.under_way
    _, (fates, _, taken, parts, wait, *_) = requests.arrive()
    assert (fates, taken, parts, wait) == ([b"reported"], b"", [], b"")


# What is kept at the server ---------------------------------------------------


def test_every_key_expires_after_the_outbox_has_given_up(host, times, server):
    one, other = host(), host()
    kept = redis_hosts.TTL + redis_parts.LONGER
    for process in (one, other):
        process.seal(part("a"), part("late", epoch=RUNNING - 9))
        process.turn()
    times.pass_by(OVER)
    one.line.fates.extend(["answered", "never"])
    one.turn()
    keys = server.keys("peakhold:*")
    kinds = {key.decode().split(":")[2] for key in keys}
    assert kinds == {"open", "parts", "lease", "closed", "born", "sharers"}
    for key in keys:
        least = 0 if b":lease:" in key else kept - 60
        assert least < server.ttl(key) <= kept, key


def test_the_server_learns_neither_key_nor_name(host, server):
    process = host(exporters=[Keyed(api_key="canary-of-the-api-key")])
    process.seal(part("a", key="canary-of-the-window"))
    process.turn()
    keys = b" ".join(server.keys("peakhold:*"))
    for secret in (b"canary", HERE.api_key_fingerprint.encode(), b"here"):
        assert secret not in keys
    for key in server.keys("peakhold:*"):
        assert b"canary-of-the-api-key" not in server.dump(key)


def test_all_keys_of_a_window_are_in_one_slot_of_a_cluster(host, server):
    process = host()
    process.seal(part("a"))
    process.turn()
    tags = {key.decode().split("{")[1].split("}")[0] for key in server.keys("p*")}
    assert len(tags) == 1


# The fields of a request ------------------------------------------------------


@pytest.fixture
def ask(running, times, server):
    """Runs the script with some fields; returns what it answers."""
    script = server.register_script(redis_parts._SCRIPT)

    def ask(*parts, sharer="me", **fields):
        request = {
            "deadline": times.wall + times.ahead + 30,
            "frequency": 5,
            "grace": 1.25,
            "kept": 10_000,
            "lease": 30,
            "sharer": sharer,
            "leaving": False,
            "takes": True,
            "remembered": 600,
            "sharing": 0,
            "reported": [],
            "damaged": [],
            "settled": [],
            "parts": [(part_id, epoch, has) for part_id, epoch, has in parts],
            **fields,
        }
        values = [b"value of " + each[0].encode() for each in parts if each[2]]
        fates, _, taken, flat, wait, *_ = script(
            ["peakhold:{w}"], [json.dumps(request), *values]
        )
        return [each.decode() for each in fates], taken, flat, wait

    return ask


def test_a_script_tells_the_fate_of_each_part(ask, times):
    new, old = ("a", RUNNING, True), ("b", RUNNING - 9, True)
    fates, taken, flat, wait = ask(new, old, ("c", RUNNING, False))
    assert fates == ["new", "late", "absent"]
    assert (taken, flat, wait) == (b"", [], b"6.250")
    assert ask(("a", RUNNING, False), new)[0] == ["there", "there"]
    times.pass_by(OVER)
    _, taken, flat, wait = ask()
    assert taken == str(RUNNING).encode()
    assert dict(zip(flat[::2], flat[1::2], strict=True)) == {
        b"a": b"value of a",
        b"b": b"value of b",
    }
    assert ask(("a", RUNNING, False))[0] == ["there"]
    reported = [(RUNNING, ["a", "b"])]
    assert ask(("a", RUNNING, False), reported=reported) == (["reported"], b"", [], b"")


def test_an_epoch_is_one_sharers_for_its_lease(ask, times):
    ask(("a", RUNNING, True))
    times.pass_by(OVER)
    assert ask()[1] != b""
    assert ask()[1] != b""  # again, if the answer got lost
    assert ask(sharer="another")[1:] == (b"", [], b"0.500")
    times.pass_by(31)
    assert ask(sharer="another")[1] != b""
    assert ask()[1] == b""


def test_an_epoch_that_was_handed_out_takes_no_further_part(ask, times):
    ask(("a", RUNNING, True))
    times.pass_by(OVER)
    ask()
    assert ask(("b", RUNNING, True), sharer="another")[0] == ["late"]
    assert ask()[2] == [b"a", b"value of a"]


@pytest.mark.parametrize("back", [3, 6, 11, 3600])
def test_nor_does_it_once_the_clock_was_set_back(back, ask, times):
    ask(("a", RUNNING, True))
    times.pass_by(OVER)
    ask()
    times.set_server(-back)
    for number in range(20):
        now = epoch_at(times.wall + times.ahead, 5)
        ask((f"b{number}", now, True), (f"c{number}", now + 1, True), sharer="another")
        times.pass_by(1)
    times.set_server(back)
    times.pass_by(31)
    handed, reported = {}, []
    for _ in range(20):
        _, epoch, flat, _ = ask(sharer="another", reported=reported)
        if epoch:
            handed[int(epoch)] = flat[::2]
            reported = [(int(epoch), [each.decode() for each in flat[::2]])]
    assert handed[RUNNING] == [b"a"]
    assert sum(map(len, handed.values())) == 41


def test_ids_are_known_for_as_long_as_a_request_may_be_under_way(ask, times):
    ask(("a", RUNNING, True))
    times.pass_by(OVER)
    ask()
    ask(reported=[(RUNNING, ["a"])], settled=["a"])
    times.pass_by(590)
    assert ask(("a", RUNNING, True))[0] == ["reported"]
    times.pass_by(20)
    assert ask(("a", RUNNING, False))[0] == ["absent"]


def test_ids_are_known_for_as_long_as_they_are_kept_else(ask, times):
    ask(("a", RUNNING, True))
    times.pass_by(OVER)
    ask()
    ask(reported=[(RUNNING, ["a"])])
    times.pass_by(9_980)
    assert ask(("a", RUNNING, True))[0] == ["reported"]


def test_a_damaged_part_is_forgotten_so_that_it_can_be_offered_again(ask):
    ask(("a", RUNNING, True))
    ask(damaged=[(RUNNING, ["a"])])
    assert ask(("a", RUNNING, False))[0] == ["absent"]
    assert ask(("a", RUNNING, True))[0] == ["new"]


def test_who_leaves_is_given_what_nobody_shares_any_more(ask, times):
    ask(("a", RUNNING, True), sharing=10)
    ask(("b", RUNNING, True), sharing=10, sharer="another")
    assert ask(leaving=True)[1] == b""
    assert ask(leaving=True, sharer="another")[1] == str(RUNNING).encode()
    assert ask(("c", RUNNING, True), sharer="a third")[0] == ["late"]


def test_who_counts_as_sharing_does_so_for_some_time(ask, times):
    ask(("a", RUNNING, True), sharing=3)
    times.pass_by(2)
    assert ask(leaving=True, sharer="another")[1] == b""
    times.pass_by(2)
    assert ask(leaving=True, sharer="another")[1] != b""


def test_who_shares_no_more_says_so(ask):
    ask(("a", RUNNING, True), sharing=3)
    ask(sharing=0)
    assert ask(leaving=True, sharer="another")[1] != b""


# A server that is away --------------------------------------------------------


def warnings_of(caplog):
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def test_alone_after_half_a_minute(host, times, caplog):
    process = host()
    process.seal(part("a"))
    process.line.is_cut = True
    times.pass_by(OVER)
    process.turn()
    for _ in range(29):
        times.pass_by(1)
        assert process.turn() == ([], exchange.PAUSE)
    times.pass_by(1.5)
    ((_, share),), _ = process.turn()
    assert share.epoch == RUNNING
    assert process.reports() == [{"a"}]
    sharing = process.outbox.sharing
    assert (sharing["alone"], sharing["unsure"]) == (1, 0)
    assert len(warnings_of(caplog)) == 1


def test_what_the_server_may_have_waits_for_ten_minutes(host, times):
    process = host()
    process.seal(part("a"))
    process.line.fates.extend(["answered", "lost"])
    process.turn()
    process.line.is_cut = True
    for _ in range(60):
        times.pass_by(10)
        process.turn()
        assert process.reports() == []
    times.pass_by(10)
    process.turn()
    assert process.reports() == [{"a"}]
    sharing = process.outbox.sharing
    assert (sharing["alone"], sharing["unsure"]) == (1, 1)


def test_so_does_one_of_long_ago_that_came_late(host, times):
    process = host()
    process.seal(part("a", epoch=RUNNING - 500))
    process.turn()
    process.line.is_cut = True
    for _ in range(12):
        process.turn()
        times.pass_by(10)
    assert process.reports() == []
    process.line.is_cut = False
    process.turn()
    assert process.reports() == [{"a"}]
    assert process.outbox.sharing["unsure"] == 0


def test_a_server_that_answers_again_is_asked_again(host, times, caplog):
    caplog.set_level("INFO", "peakhold.delivery")
    process = host()
    process.seal(part("a"))
    process.line.is_cut = True
    process.turn()
    assert process.exchange.away_since is not None
    process.line.is_cut = False
    process.turn()
    assert process.exchange.away_since is None
    times.pass_by(OVER)
    process.turn()
    assert process.reports() == [{"a"}]
    assert caplog.text.count("can be used again") == 1


def test_what_another_server_was_left_with_is_reported_by_anyone(host, times, running):
    one = host("one")
    one.seal(part("a"))
    one.turn()
    one.end()
    other = Process(one.state.path, OtherLine(running, times), times)
    assert other.outbox.close_epochs([HERE]).closed == []
    times.pass_by(OVER + 599)
    assert other.outbox.close_epochs([HERE]).closed == []
    times.pass_by(2)
    assert len(other.outbox.close_epochs([HERE]).closed) == 1
    assert other.reports() == [{"a"}]
    sharing = other.outbox.sharing
    assert (sharing["alone"], sharing["unsure"]) == (1, 1)
    other.end()


def test_not_while_one_that_shares_there_lives(host, times, running):
    one = host("one")
    one.seal(part("a"))
    other = Process(one.state.path, OtherLine(running, times), times)
    times.pass_by(1000)
    assert other.outbox.close_epochs([HERE]).closed == []
    other.end()


class OtherLine(Line):
    """The way to a server of another name."""

    place = "another"


@pytest.fixture
def refusing(server):
    """Has the server refuse what is asked, for a reason."""

    def begin(reason):
        if reason == "OOM":
            server.config_set("maxmemory", "1")
        elif reason == "READONLY":
            server.replicaof("127.0.0.1", "1")
        elif reason == "NOAUTH":
            server.config_set("requirepass", "canary-of-the-server")
        else:
            server.acl_setuser("limited", enabled=True, nopass=True)

    def end():
        with redis.Redis(
            connection_pool=redis.ConnectionPool(
                **{
                    **server.connection_pool.connection_kwargs,
                    "password": "canary-of-the-server",
                }
            )
            if server.needs_password
            else server.connection_pool
        ) as client:
            client.config_set("requirepass", "")
            client.config_set("maxmemory", "0")
            client.replicaof("NO", "ONE")

    server.needs_password = False
    yield begin, end
    end()


# A server that refuses -----------------------------------------------------------


@pytest.fixture
def own_server(times, monkeypatch):
    """A server of the test's own, which it may make refuse; it has its own clock."""
    del times
    monkeypatch.setattr(redis_parts, "_SCRIPT", redis_hosts.SCRIPT)
    with RedisServer() as server:
        yield server


def process_at(server, times, tmp_path, secret="", exporters=None):
    login = f"user-of-it:{secret}@" if secret else ""
    url = RedisUrl(f"redis://{login}127.0.0.1:{server.port}/0")
    return Process(tmp_path / "host", url, times, exporters)


def read_only(server):
    server.ask("REPLICAOF", "127.0.0.1", "1")


def with_a_password(server):
    server.ask("ACL", "SETUSER", "default", ">secret-of-another")


def of_another_user(server):
    server.ask("ACL", "SETUSER", "user-of-it", "on", ">secret-of-another")


def without_the_right(server):
    server.ask("ACL", "SETUSER", "default", "-evalsha")


def without_scripts(server):
    server.ask("ACL", "SETUSER", "default", "-script")


def asleep(server):
    server.stop()


@pytest.mark.parametrize(
    ("refuse", "kind"),
    [
        (read_only, "ReadOnlyError"),
        (with_a_password, "AuthenticationError"),
        (of_another_user, "AuthenticationError"),
        (without_the_right, "NoPermissionError"),
        (without_scripts, "NoPermissionError"),
        (asleep, "ConnectionError"),
    ],
)
def test_a_server_that_refuses_is_away(
    refuse, kind, own_server, times, tmp_path, caplog
):
    secret = "canary-of-the-server" if refuse is of_another_user else ""
    refuse(own_server)
    process = process_at(own_server, times, tmp_path, secret)
    process.seal(part("a"))
    for _ in range(3):
        assert process.turn() == ([], exchange.PAUSE)
        times.pass_by(1)
    assert process.exchange.away_since is not None
    (warning,) = warnings_of(caplog)
    assert f"127.0.0.1:{own_server.port}" in warning
    assert kind in warning
    assert "canary" not in caplog.text
    assert "user-of-it" not in caplog.text
    assert process.parts
    process.end()


def test_a_server_that_can_be_written_again_is_there_again(
    own_server, times, tmp_path, caplog
):
    caplog.set_level("INFO", "peakhold.delivery")
    read_only(own_server)
    process = process_at(own_server, times, tmp_path)
    process.seal(part("a"))
    process.turn()
    own_server.ask("REPLICAOF", "NO", "ONE")
    process.turn()
    assert process.exchange.away_since is None
    assert caplog.text.count("can be used again") == 1
    process.turn(leaving=True)
    process.end()


def test_a_server_that_was_started_again_is_asked_again(own_server, times, tmp_path):
    process = process_at(own_server, times, tmp_path)
    process.seal(part("a"))
    process.turn()
    own_server.stop()
    process.turn()
    assert process.exchange.away_since is not None
    own_server.start()  # it is empty, and knows no script
    process.turn()
    assert process.exchange.away_since is None
    assert process.outbox.sharing["unsure"] == 1
    assert own_server.ask("DBSIZE") > 0
    process.end()


# Much at once --------------------------------------------------------------------


def test_many_windows_are_asked_about_a_hundred_at_once(host, times):
    sizes = []
    process, other = host(), host()
    passed_on = process.line.passed_on

    def counted(requests):
        sizes.append(len(requests.calls) - 1)
        return passed_on(requests)

    for each in (process, other):
        each.seal(*(part("a", key=f"k{number}") for number in range(250)))
    other.turn()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Line, "passed_on", lambda _, requests: counted(requests))
        process.turn()
    assert sizes == [100, 100, 50] * 2  # the first time without the parts
    times.pass_by(OVER)
    closed, _ = process.turn()
    assert len(closed) == 250
    assert process.reports() == [{"a"}] * 250
    other.turn()
    assert not other.parts


def test_what_is_asked_after_a_failure_is_asked_again(host, times):
    process = host()
    process.seal(*(part("a", key=f"k{number}") for number in range(250)))
    process.line.fates.extend(["answered", "never"])
    assert process.turn() == ([], exchange.PAUSE)
    process.turn()
    times.pass_by(OVER)
    closed, _ = process.turn()
    assert len(closed) == 250


def test_more_than_is_offered_at_once_is_offered_at_last(host, times, monkeypatch):
    monkeypatch.setattr(offers, "MOST_BYTES", 1000)
    monkeypatch.setattr(exchange, "MOST_BYTES", 1000)
    process = host()
    process.seal(part("known"))
    process.turn()
    records = process.seal(*(part(f"c{number}") for number in range(20)))
    offered = process.outbox.offer_parts([HERE])
    packed = [each.packed for each in offered[0].parts if each.packed]
    assert 1000 <= sum(map(len, packed)) < 2000
    assert len(packed) < len(records)
    process.turn()
    times.pass_by(OVER)
    process.turn()
    assert process.reports() == [{"known", *(f"c{number}" for number in range(20))}]


def test_one_part_that_is_larger_than_that_is_offered_alone(host, times, monkeypatch):
    monkeypatch.setattr(offers, "MOST_BYTES", 1)
    monkeypatch.setattr(exchange, "MOST_BYTES", 1)
    process = host()
    process.seal(part("a"), part("b"))
    process.turn()
    times.pass_by(OVER)
    process.turn()
    assert process.reports() == [{"a", "b"}]


def test_a_destination_that_was_forgotten_is_asked_about_no_more(host, times):
    process = host()
    process.seal(part("a"))
    process.turn()
    times.pass_by(OVER)
    process.line.fates.extend(["answered", "never"])
    process.turn()
    exporters, process.exporters = process.exporters, {}
    assert process.turn() == ([], None)
    process.exporters = exporters
    process.turn()
    assert process.reports() == [{"a"}]


def test_an_epoch_whose_parts_somebody_deleted_holds_up_nothing(host, times, server):
    process = host()
    process.seal(part("a"))
    process.turn()
    (key,) = server.keys("peakhold:*:parts:*")
    server.delete(key)
    times.pass_by(OVER)
    process.turn()
    assert server.zcard(key.rpartition(b":parts:")[0] + b":open") == 1
    times.pass_by(OVER)
    process.turn()
    assert process.reports() == [{"a"}]
    assert process.outbox.sharing["unsure"] == 1


def test_a_late_part_is_of_the_epoch_that_it_is_in(host):
    process = host()
    process.seal(part("a", epoch=RUNNING - 500))
    process.turn()
    with closing(sqlite3.connect(process.state.outbox)) as database:
        assert database.execute("SELECT epoch FROM parts").fetchall() == [(RUNNING,)]


def test_two_lost_answers_with_a_server_that_forgot_in_between_are_counted(host, times):
    process = host()
    process.seal(part("a"))
    process.line.fates.extend(["answered", "lost"])
    process.turn()
    times.pass_by(0.1)
    times.flush()
    process.line.fates.append("lost")
    process.turn()
    process.turn()
    assert process.outbox.sharing["unsure"] == 1


def test_while_the_disk_fails_the_server_is_asked_nothing(host, monkeypatch):
    process = host()
    process.seal(part("a"))
    monkeypatch.setattr(process.outbox, "has_parts", lambda: None)
    assert process.turn() == ([], exchange.PAUSE)
    assert not process.exchange.is_whole
