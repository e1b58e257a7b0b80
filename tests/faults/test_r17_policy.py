"""R17: what every status and every form of Retry-After does to a record."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http import HTTPStatus

import pytest
from stepping import FIRST_PAUSE, Stepped, conserved

from peakhold.delivery import policy, sender
from peakhold.delivery.policy import Verdict
from peakhold.testing import refuse

HOUR = 3600.0
PARKED = 900.0
# From the table of the design, and nothing else: status -> state, pause in seconds.
DELIVERED = range(200, 300)
RETRIED = {408, 425, 429, *range(500, 600)}
NEEDS_A_PERSON = {401, 402, 403, 404, 423}
STATUSES = sorted(
    {*(status.value for status in HTTPStatus if status >= HTTPStatus.OK), 418, 499, 599}
)


def http_date(seconds):
    now = datetime.now(timezone.utc)
    return format_datetime(now + timedelta(seconds=seconds), usegmt=True)


# Form -> the header's text, and the seconds it asks for.
FORMS = {
    "none": lambda: (None, 0.0),
    "seconds": lambda: ("120", 120.0),
    "zero": lambda: ("0", 0.0),
    "more than an hour": lambda: ("86400", HOUR),
    "date": lambda: (http_date(600), 600.0),
    "date of a year's time": lambda: (http_date(365 * 86400), HOUR),
    "date in the past": lambda: (http_date(-600), 0.0),
    "negative": lambda: ("-5", 0.0),
    "nonsense": lambda: ("a while", 0.0),
    "enormous": lambda: ("9" * 500, HOUR),
    "empty": lambda: ("", 0.0),
}


def expected(status, asked):
    """Return state and pause as the table has them; None: there is no next attempt."""
    if status in DELIVERED:
        return "delivered", None
    if status in RETRIED:
        return "pending", max(FIRST_PAUSE, asked)
    if status in NEEDS_A_PERSON:
        return "parked", max(PARKED, asked)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or 400 <= status < 500:
        return "dead", None
    return "pending", max(FIRST_PAUSE, asked)  # redirects that are not followed


def outcome(api, directory, status, header):
    """Return state and pause of a record whose request was so answered."""
    stepped = Stepped(api, directory)
    # After a 404 the workspace is looked up once more, and the request made again.
    api.failures = [refuse(status, header)] * (2 if status == 404 else 1)
    stepped.seal(a=0.5)
    stepped.run(0.0)
    counts = stepped.counts()
    assert conserved(counts)
    states = Counter(
        delivered=counts.delivered,
        pending=counts.pending,
        parked=counts.parked,
        dead=counts.dead,
        **{f"dropped {why}": many for why, many in counts.dropped.items()},
    )
    (state,) = states.elements()
    pause = next_attempt(api, stepped) if state in {"pending", "parked"} else None
    stepped.dispatcher.close(0)
    return state, pause


def next_attempt(api, stepped):
    """Return after how many seconds there is another request, None if not as told."""
    before = len(api.posts())
    (destination,) = stepped.dispatcher.destinations()
    pause = destination["next_attempt_in"]
    made = []
    for seconds in (pause - 0.5, 1.0):
        stepped.clock.advance(max(0.0, seconds))
        stepped.dispatcher.step()
        made.append(len(api.posts()) - before)
    return pause if made == [0, 1] else None


def agree(got, wanted):
    """Whether an outcome is the expected one; a date has no fractions of a second."""
    if got[0] != wanted[0] or (got[1] is None) != (wanted[1] is None):
        return False
    return wanted[1] is None or abs(got[1] - wanted[1]) <= 3.0


def differing(api, tmp_path, statuses, forms):
    """Return the combinations whose outcome is not that of the table."""
    wrong = {}
    for status in statuses:
        for form in forms:
            header, asked = FORMS[form]()
            got = outcome(api, tmp_path / f"{status} {form}", status, header)
            if not agree(got, wanted := expected(status, asked)):
                wrong[status, form] = (got, wanted)
    return wrong


def test_every_status_does_what_the_table_says(api, tmp_path, figure):
    assert differing(api, tmp_path, STATUSES, FORMS) == {}
    figure(
        "R17",
        f"{len(STATUSES)} statuses x {len(FORMS)} forms of Retry-After, 0 differ",
    )


@pytest.mark.parametrize("status", [429, 422, 402])
def test_the_control_another_policy_is_seen(api, tmp_path, monkeypatch, status, figure):
    other = Verdict.PARK if status == 429 else Verdict.RETRY
    monkeypatch.setattr(sender, "verdict", lambda error: other)
    seen = differing(api, tmp_path, [status], ["none"])
    assert seen != {}
    figure("R17n", f"{other.value} for {status}: {len(seen)} differs")


def test_the_control_a_shorter_wait_is_seen(api, tmp_path, monkeypatch, figure):
    monkeypatch.setattr(policy, "LONGEST_RETRY_AFTER", 60.0)
    seen = differing(api, tmp_path, [503], FORMS)
    assert {form for _, form in seen} >= {"seconds", "date", "enormous"}
    figure("R17n", f"a minute at most: {len(seen)} of {len(FORMS)} forms differ")
