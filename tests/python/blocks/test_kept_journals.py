"""Journals of every format that was ever kept are delivered by every later version.

``scripts/keep_format.py`` has written the files: of a process with an open window, a
closed one of two models, a batch of metadata of two frames, and a window and a batch
that were committed, in several segments. What each of the first three sends stands
beside them, and is compared byte for byte: a server may have had it before.
"""

from __future__ import annotations

import base64
import json
import os
import runpy
import subprocess
import sys
import tarfile
from datetime import datetime, timezone
from pathlib import Path

import pytest

from peakhold.blocks.adoption import Adoption
from peakhold.delivery import Dispatcher, Sender
from peakhold.roboflow import RoboflowClient, Settings

FILES = sorted(Path(__file__).with_name("formats").glob("*.tar.gz"))
SCRIPT = Path(__file__).parents[3] / "scripts" / "keep_format.py"
KEPT = runpy.run_path(str(SCRIPT))
WRITE = f"""
import pathlib, runpy, sys
runpy.run_path({str(SCRIPT)!r})["write_journal"](pathlib.Path(sys.argv[1]))
"""


class Client(RoboflowClient):
    """The package's own, on the machine of the process that died."""

    def get_device_id(self):
        return KEPT["FACTS"]["device_id"]

    def get_server_version(self):
        return KEPT["FACTS"]["inference_server_version"]

    def get_system_info(self):
        return dict(list(KEPT["FACTS"].items())[2:])


@pytest.fixture
def sender(api, cache):
    """Sends to the address of the dead process, through a gateway that is here."""
    settings = Settings(
        api_base_url="http://here", secure_gateway=api.url, system_info=False
    )
    client = Client(settings)
    yield Sender(client, KEPT["API_KEY"], cache, injected=False)
    client.close()


def unpacked(file, directory):
    """The segments of a file, with the times at which they were written."""
    segments = []
    with tarfile.open(file) as archive:
        for member in archive:
            segment = directory / member.name
            segment.parent.mkdir(parents=True, exist_ok=True)
            segment.write_bytes(archive.extractfile(member).read())
            os.utime(segment, (member.mtime, member.mtime))
            segments.append(segment)
    return segments


def bodies_of(file):
    said = json.loads(file.with_suffix("").with_suffix(".json").read_text("ascii"))
    return {name: base64.b64decode(body) for name, body in said.items()}


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def kept(request, state):
    """The segments of a dead process in a state directory, and its bodies."""
    segments = unpacked(request.param, state.journals)
    assert len(segments) > 1
    return segments, {
        name: in_local_time(body) for name, body in bodies_of(request.param).items()
    }


def in_local_time(body):
    """A body with its time of UTC as a process of this machine says it."""
    if utc := json.loads(body).get("timestamp"):
        at = datetime.fromisoformat(utc).replace(tzinfo=timezone.utc)
        local = at.astimezone().replace(tzinfo=None).isoformat(timespec="microseconds")
        return body.replace(utc.encode(), local.encode(), 1)
    return body


def delivered(state, clock, sender, api):
    """Adopt and send; returns the bodies that arrived by their idempotency keys."""
    dispatcher = Dispatcher(state, clock=clock, worker=False)
    adoption = Adoption(dispatcher)
    adoption.lend(sender)
    adoption.adopt(0.0)
    for _ in range(10):
        dispatcher.step()
        clock.advance(1.0)
    posts = api.posts()
    found = {post.headers["Idempotency-Key"]: post.body for post in posts}
    assert len(found) == len(posts)
    return found, dispatcher.notices.counts["journal"]


def test_the_journal_of_a_dead_process_is_delivered_as_it_would_have_been(
    kept, state, clock, sender, api
):
    _, bodies = kept
    assert delivered(state, clock, sender, api) == (bodies, 0)
    assert len(bodies) == 3
    assert list(state.journals.iterdir()) == []


@pytest.mark.parametrize("text", [b"early", b"plant/2-person"])
def test_the_control_a_damaged_record_is_missed_and_costs_no_other(
    kept, state, clock, sender, api, text
):
    segments, bodies = kept
    segment = next(each for each in segments if text in each.read_bytes())
    written = segment.stat().st_mtime  # the time of the window that was open
    segment.write_bytes(segment.read_bytes().replace(text, text.upper(), 1))
    os.utime(segment, (written, written))
    found, damaged = delivered(state, clock, sender, api)
    assert damaged == 1
    assert found.keys() == bodies.keys()
    (other,) = (name for name, body in bodies.items() if found[name] != body)
    assert text in bodies[other]
    assert text not in found[other]


def test_a_later_format_is_left_alone(kept, state, clock, sender, api):
    segments, _ = kept
    data = segments[-1].read_bytes()
    magic = data[:8]
    newer = data.replace(magic + data[8:9], magic + bytes([data[8] + 1]))
    segments[-1].write_bytes(newer)
    assert delivered(state, clock, sender, api) == ({}, 1)
    assert segments[-1].read_bytes() == newer
    assert all(segment.exists() for segment in segments)


def records_of(segment):
    """Kind, version and content of each record, without what is random in a file.

    Those are the marker, which stands in the header twice and before each record, and
    the checksum behind its length, which covers it.
    """
    data = segment.read_bytes()
    beginning, marker = data[:9], data[9:13]
    return beginning, [
        (record[:4], record[8:]) for record in data[34:].split(marker)[1:]
    ]


def test_what_is_written_now_is_what_was_kept(tmp_path):
    """Whoever changes the format changes the version, and keeps another file."""
    target = tmp_path / "now.tar.gz"
    subprocess.run([sys.executable, "-c", WRITE, target], check=True, timeout=60)
    (file,) = (
        f for f in FILES if f.name == f"version-{KEPT['JOURNAL_VERSION']}.tar.gz"
    )
    now, then = (
        unpacked(each, tmp_path / each.name.partition(".")[0])
        for each in (target, file)
    )
    assert [*map(records_of, now)] == [*map(records_of, then)]
    beginning, records = records_of(now[0])
    version = f"{beginning[8]}.{records[0][1][1]}"
    assert version == KEPT["JOURNAL_VERSION"]
    names = [name.partition("-")[2] for name in bodies_of(file)]
    bodies = bodies_of(target)
    assert [name.partition("-")[2] for name in bodies] == names
    assert [*bodies.values()] == [*bodies_of(file).values()]
