"""R5: whatever happened to a journal, recovery gives what was written, and no more."""

from __future__ import annotations

import random

import pytest

from peakhold import PeakAggregator
from peakhold._peakhold import Journal, recover_journal

SIZE = 4096
SHUFFLES = 300
HEADER = 34
ABOUT = b"whose it is"


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """The bytes of a journal of about 4 KiB, and every confidence written to it."""
    directory = tmp_path_factory.mktemp("journals") / "owner"
    aggregator = PeakAggregator(journal=Journal(directory), about=ABOUT)
    draw, written, best = random.Random(5), {}, 0.0
    while True:
        best += (1.0 - best) * 0.01
        name = f"class-{draw.randrange(20)}"
        written.setdefault(name, set()).add(best)
        aggregator.observe(
            {
                "inference_id": f"id-{best}",
                "prediction_type": "classification",
                "predictions": [{"class": name, "confidence": best}],
            },
            "m/1",
        )
        (path,) = directory.glob("*.journal")
        if path.stat().st_size >= SIZE:
            return path.read_bytes(), written, aggregator.snapshot().report()


def recovered(data):
    """Recover the only window; returns its report and how much is damaged."""
    windows, damaged, unknown = recover_journal([data])
    assert unknown == 0
    assert all(about in {ABOUT, None} for _, _, about, *_ in windows)
    return [line for *_, window in windows for line in window.report()], damaged


def invented(data, written):
    """Recover; returns what was found that nobody wrote."""
    try:
        report, _ = recovered(data)
    except ValueError:
        return []
    return [
        line
        for line in report
        if line["confidence"] not in written.get(line["class_name"], ())
        or line["inference_id"] != f"id-{line['confidence']}"
    ]


def test_a_whole_journal_gives_the_report_of_its_window(journal):
    data, _, report = journal
    assert recovered(data) == (report, 0)


def test_neither_truncation_nor_a_flip_of_any_byte_invents_anything(journal, figure):
    data, written, _ = journal
    for at in range(len(data)):
        assert invented(data[:at], written) == []
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            assert invented(bytes(flipped), written) == []
    figure(
        "R5",
        f"{len(data)} bytes: each truncation and each of {8 * len(data)} flips, "
        "0 values invented, 0 panics",
    )


def test_random_bytes_after_a_whole_journal_are_damage_and_no_more(journal, seed):
    data, written, report = journal
    draw = random.Random(seed)
    for _ in range(1000):
        tail = draw.randbytes(draw.randrange(1, 200))
        assert recovered(data + tail) == (report, 1)
        assert invented(draw.randbytes(draw.randrange(SIZE)), written) == []


def records_of(data):
    """Return the header of a segment's bytes, and its records.

    A record is a marker, its length, four bytes of CRC and so many bytes, see
    `rust/record.rs`.
    """
    at, parts = HEADER, []
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append(data[at:end])
        at = end
    return data[:HEADER], parts


def test_damage_costs_its_own_record_only(journal, figure):
    data, _, _ = journal
    header, parts = records_of(data)
    for index, part in enumerate(parts):
        others = b"".join(parts[:index] + parts[index + 1 :])
        flipped = bytearray(part)
        flipped[len(part) // 2] ^= 1
        damaged = b"".join([header, *parts[:index], flipped, *parts[index + 1 :]])
        assert recovered(damaged) == (recovered(header + others)[0], 1)
    figure("R5", f"each of {len(parts)} records damaged: 0 others lost")


def test_records_twice_and_out_of_order_invent_nothing(journal, seed, figure):
    data, written, report = journal
    head, (about, _, *parts) = records_of(data)
    assert len(parts) > 50
    draw = random.Random(seed)
    for _ in range(SHUFFLES):
        twice = [each for each in parts for _ in range(draw.choice([1, 1, 2]))]
        assert recovered(head + about + b"".join(twice)) == (report, 0)
        draw.shuffle(twice)
        assert recovered(head + about + b"".join(twice)) == (report, 0)
        assert invented(head + b"".join(twice), written) == []
    figure("R5", f"{SHUFFLES} shuffles of {len(parts)} records, some twice, 0 invented")


def test_the_control_a_value_that_was_not_written_is_seen(journal, figure):
    data, written, report = journal
    peak = report[0]
    others = written[peak["class_name"]] - {peak["confidence"]}
    assert invented(data, {**written, peak["class_name"]: others}) == [peak]
    figure("R5n", "one peak taken for invented: seen")
