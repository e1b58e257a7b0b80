"""R14: merging snapshots is commutative, associative and idempotent."""

from __future__ import annotations

import itertools
import json
import random

from peakhold import PeakAggregator

CASES = 10_000
MODELS = ("m/1", "m/2")
NAMES = ("a", "b", "c")
CONFIDENCES = (0.0, -0.0, 0.25, 0.5, 0.5, 1.0, float("nan"))


def snapshot(draw):
    """Return what a window holds after some frames, ties and NaN among them."""
    aggregator = PeakAggregator()
    for _ in range(draw.randrange(4)):
        rows = [
            {"class": draw.choice(NAMES), "confidence": draw.choice(CONFIDENCES)}
            for _ in range(draw.randrange(1, 4))
        ]
        aggregator.observe(
            {
                "inference_id": f"{draw.randrange(1000)}",
                "prediction_type": "classification",
                "predictions": rows,
            },
            draw.choice(MODELS),
        )
    return aggregator.snapshot()


def said(merged):
    """Return the report, byte for byte: the sign of a zero counts, too."""
    return json.dumps(merged.report())


def broken_laws(merge, a, b, c):
    """Return the laws of merging that three snapshots break."""
    laws = {
        "commutative": (merge(a, b), merge(b, a)),
        "associative": (merge(merge(a, b), c), merge(a, merge(b, c))),
        "idempotent": (merge(merge(a, b), b), merge(a, b)),
    }
    return {law for law, (one, other) in laws.items() if said(one) != said(other)}


def test_ten_thousand_random_triples_keep_the_laws(seed, figure, caplog):
    caplog.set_level("ERROR")  # a NaN is told once
    draw = random.Random(seed)
    windows = [snapshot(draw) for _ in range(200)]
    for _ in range(CASES):
        three = [draw.choice(windows) for _ in range(3)]
        assert broken_laws(type(three[0]).merge, *three) == set()
    figure("R14", f"{CASES} triples with ties, NaN and -0.0, 0 laws broken")


class Plain:
    """A snapshot in which among equal confidences the one merged last wins."""

    def __init__(self, best):
        self.best = best

    def merge(self, other):
        best = dict(self.best)
        for name, (confidence, origin) in other.best.items():
            if confidence >= best.get(name, (-1.0, ""))[0]:
                best[name] = (confidence, origin)
        return Plain(best)

    def report(self):
        return sorted(self.best.items())


def test_the_control_a_merge_that_does_not_settle_ties_breaks_them(figure):
    kinds = [Plain({"a": (0.5, origin)}) for origin in "xyz"]
    broken = set()
    for three in itertools.permutations(kinds):
        broken |= broken_laws(Plain.merge, *three)
    assert "commutative" in broken
    figure("R14n", f"ties left open: {', '.join(sorted(broken))} broken")
