"""The page for people: what it shows, and that hostile text stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from peakhold.monitor import MonitorServer
from peakhold.monitor.overview import MAX_ROWS


class Page(HTMLParser):
    """The page as a browser understands it: elements, and rows of visible text."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self.rows = []
        self.options = []
        self.text = ""
        self.in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True
        if tag == "option":
            self.options.append(dict(attrs))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data

    def row(self, first):
        (found,) = [row for row in self.rows if row and row[0] == first]
        return [cell.strip() for cell in found]


def test_an_empty_monitor_says_what_to_do(api):
    answer = api.dashboard()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    assert "No inference results yet" in page.text
    assert "API_BASE_URL" in page.text
    assert "No metadata yet" in page.text
    assert page.rows == []


def test_classes_stand_with_count_average_maximum_and_time(api, clock, report, row):
    api.report(report(row("cat", 0.25), row("dog", 0.125)))
    clock.advance(seconds=5)
    api.report(report(row("cat", 0.75)))
    page = Page(api.dashboard().text)
    assert page.row("cat") == [
        "cat", "animals/3", "2", "0.500", "0.750", "2026-03-14 12:00:05",
    ]  # fmt: skip
    assert page.row("dog") == [
        "dog", "animals/3", "1", "0.125", "0.125", "2026-03-14 12:00:00",
    ]  # fmt: skip
    assert re.search(r"2 reports and\s+0 metadata requests received", page.text)


def test_metadata_stands_with_its_inferences(api, report, metadata, row):
    api.report(report(row(inference_id="i1")))
    api.metadata(metadata((["i1", "i2", "i3"], "shift", "night")))
    page = Page(api.dashboard().text)
    *found, latest, seen = page.row("shift")
    assert found == ["shift", "night", "3", "1"]
    assert latest in ("i1", "i2", "i3")
    assert seen == "2026-03-14 12:00:00"


def test_the_filter_restricts_classes_and_metadata(api, report, metadata, row):
    api.report(report(row("cat", model_id="animals/3", inference_id="i1")))
    api.report(report(row("car", model_id="street/1", inference_id="i2")))
    api.metadata(metadata((["i1"], "shift", "night"), (["i2"], "lane", "left")))
    everything = Page(api.dashboard().text)
    assert {row[0] for row in everything.rows} >= {"cat", "car", "shift", "lane"}
    assert [option["value"] for option in everything.options] == [
        "", "animals", "animals/3", "street", "street/1",
    ]  # fmt: skip
    for model in ("animals", "animals/3"):
        page = Page(api.dashboard(model=model).text)
        shown = {row[0] for row in page.rows}
        assert shown >= {"cat", "shift"}
        assert not shown & {"car", "lane"}
        (selected,) = [option for option in page.options if "selected" in option]
        assert selected["value"] == model


def test_a_model_that_nothing_is_known_of_stays_selected(api):
    page = Page(api.dashboard(model="ghost/1").text)
    assert {"value": "ghost/1", "selected": None} in page.options
    assert "Nothing was received of ghost/1." in page.text


HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&lt;"


def test_hostile_text_stays_text(api, report, metadata, row):
    assert (
        api.report(
            report(row(HOSTILE, model_id=f"{HOSTILE}/1", inference_id=HOSTILE))
        ).status
        == 200
    )
    api.metadata(metadata(([HOSTILE], f"field {HOSTILE}", HOSTILE)))
    for query in ({}, {"model": HOSTILE}, {"model": f"{HOSTILE}/1", "live": "1"}):
        answer = api.dashboard(**query)
        assert "<script" not in answer.text
        assert "<img" not in answer.text
        page = Page(answer.text)
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"script", "img", "iframe", "object", "link", "svg", "base"}
        for _, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")]
            assert "style" not in attributes
        # Control: the text itself is there, as text.
        if "model" not in query:
            assert page.row(HOSTILE)[0] == HOSTILE


def test_control_characters_and_the_empty_name_are_shown(api, report, row):
    api.report(report(row("a\x00b\x1bc"), row("", model_id="")))
    page = Page(api.dashboard().text)
    assert page.row("a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c")
    assert page.row("(empty)")[:2] == ["(empty)", "(empty)"]


def test_the_policy_lets_nothing_load_or_run(api):
    answer = api.dashboard()
    policy = answer.headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    style = directives.pop("style-src")
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", style)
    assert directives == {
        "default-src": "'none'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", answer.text)


def test_the_page_updates_itself_only_when_asked(api):
    def refreshes(page):
        return [a for tag, a in page.elements if a.get("http-equiv") == "refresh"]

    assert refreshes(Page(api.dashboard().text)) == []
    live = Page(api.dashboard(live="1", model="m&x=1").text)
    assert refreshes(live) == [{"http-equiv": "refresh", "content": "2"}]
    (stop,) = [a for tag, a in live.elements if tag == "a"]
    assert stop["href"] == "/dashboard?model=m%26x%3D1"


def test_a_flood_of_classes_is_cut_and_said(report, row, make_api):
    with MonitorServer() as monitor:
        api = make_api(monitor.url)
        classes = [row(f"class {number:04}") for number in range(MAX_ROWS + 7)]
        api.report(report(*classes, row("frequent"), row("frequent")))
        page = Page(api.dashboard().text)
    assert len(page.rows) == 1 + MAX_ROWS
    assert page.rows[1][0] == "frequent"
    assert f"The {MAX_ROWS} most frequent; 8 more." in page.text
