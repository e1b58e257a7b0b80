"""The page at /dashboard: one HTML document that loads nothing and runs no script.

Everything in it that came from a request is text from a stranger, class names above
all, and goes through `_text` or `_attribute`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from peakhold.monitor.overview import (
    MAX_ROWS,
    ClassRow,
    MetadataRow,
    Overview,
    WindowRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LIVE_SECONDS = 2
_SHOWN_CHARACTERS = 200
_LONG_NUMBER = 10_000

# What HTML does not allow in a document, NUL among it
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #647084;
  --line: #e2e6ec; --accent: #5b3df5; --bar: #cfc6fd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151b; --card: #1b2029; --ink: #e8ebf0; --soft: #98a3b5;
    --line: #2b323e; --accent: #a492ff; --bar: #473a9c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
header { display: flex; flex-wrap: wrap; gap: 16px; align-items: end; }
header div { flex: 1 1 320px; }
h1 { margin: 0; font-size: 24px; letter-spacing: -.01em; }
h2 { margin: 36px 0 12px; font-size: 17px; }
p { margin: 4px 0 0; color: var(--soft); }
form { display: flex; gap: 8px; align-items: center; flex-wrap: wrap; }
label { color: var(--soft); }
select, button, .button {
  font: inherit; color: var(--ink); background: var(--card); text-decoration: none;
  border: 1px solid var(--line); border-radius: 8px; padding: 6px 12px;
}
select { max-width: 280px; }
button { background: var(--accent); border-color: var(--accent); color: var(--card); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  gap: 12px; margin: 24px 0 0; }
dl div, .table, .empty {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
}
dl div { padding: 14px 18px; display: flex; flex-direction: column-reverse; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; font-size: 26px; font-weight: 650; letter-spacing: -.02em; }
.table { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 9px 18px; text-align: left; vertical-align: top; }
th { font-size: 13px; font-weight: 500; color: var(--soft); }
thead th { border-bottom: 1px solid var(--line); white-space: nowrap; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { font: inherit; color: inherit; font-weight: 600; }
td, tbody th { overflow-wrap: anywhere; min-width: 10em; max-width: 22em; }
.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; min-width: 0; }
.soft { color: var(--soft); }
time { white-space: nowrap; font-variant-numeric: tabular-nums; }
meter { width: 72px; height: 10px; margin-right: 8px; vertical-align: middle; }
meter::-webkit-meter-bar { background: var(--line); border: 0; border-radius: 5px; }
meter::-webkit-meter-optimum-value { background: var(--accent); border-radius: 5px; }
meter::-moz-meter-bar { background: var(--accent); border-radius: 5px; }
.empty { padding: 40px 24px; text-align: center; color: var(--soft); }
.empty strong { display: block; color: var(--ink); font-size: 17px; }
code { font: 13px ui-monospace, SFMono-Regular, Consolas, monospace; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""Nothing may load, run or frame this page; the one style sheet is known by hash."""


def render_dashboard(
    overview: Overview, workspace: str, model: str = "", *, live: bool = False
) -> str:
    """Write the page.

    Args:
        overview: What to show.
        workspace: Its name.
        model: The project part or model id that `overview` is restricted to, if any.
        live: Have the browser load the page again every two seconds.
    """
    refresh = f'<meta http-equiv="refresh" content="{_LIVE_SECONDS}">' if live else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}
<title>Model monitoring · {_attribute(workspace)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<div>
<h1>Model monitoring</h1>
<p>Workspace {_text(workspace)} · {_count(overview.reports, "report")} and
{_count(overview.metadata_requests, "metadata request")} received · times in UTC</p>
</div>
{_filter(overview.models, model, live=live)}
</header>
{_totals(overview)}
<h2>Classes</h2>
{_classes(overview, model)}
{_windows(overview.windows)}
<h2>Metadata</h2>
{_metadata(overview.metadata, model)}
</main>
</body>
</html>
"""


def _filter(models: list[str], model: str, *, live: bool) -> str:
    # A model that nothing was received of stays selected, so that the page says so.
    names = models if model in models or not model else [model, *models]
    options = "".join(
        f'<option value="{_attribute(name)}"{" selected" if name == model else ""}>'
        f"{_text(name)}</option>"
        for name in names
        if name
    )
    kept = {"model": model} if model else {}
    toggle = urlencode(kept if live else {**kept, "live": "1"})
    return f"""<form action="/dashboard" method="get">
<label for="model">Model</label>
<select id="model" name="model"><option value="">All models</option>{options}</select>
{'<input type="hidden" name="live" value="1">' if live else ""}
<button>Show</button>
<a class="button" href="/dashboard?{_attribute(toggle)}">{
        "Stop updating" if live else "Keep updating"
    }</a>
</form>"""


def _totals(overview: Overview) -> str:
    figures = [
        ("Inference results", f"{overview.results:,}"),
        ("Mean confidence", _confidence(overview.average)),
        ("Classes by model", f"{overview.class_count:,}"),
        ("Metadata values", _at_most(len(overview.metadata))),
    ]
    return (
        "<dl>"
        + "".join(
            f"<div><dt>{name}</dt><dd>{figure}</dd></div>" for name, figure in figures
        )
        + "</dl>"
    )


def _classes(overview: Overview, model: str) -> str:
    if not overview.classes:
        return _empty(
            "No inference results yet",
            f"Nothing was received of {_text(model)}."
            if model
            else "Start a pipeline with <code>API_BASE_URL</code> set to this "
            "address; its first report appears here.",
        )
    more = overview.class_count - len(overview.classes)
    note = f"<p>The {MAX_ROWS} most frequent; {more:,} more.</p>" if more else ""
    columns = ("Class", "Model", "#Reported", "#Mean confidence", "#Max", "Last seen")
    return _table(columns, map(_class_row, overview.classes)) + note


def _class_row(row: ClassRow) -> str:
    # A meter's value must lie within its range; confidences need not.
    share = min(max(row.average, 0.0), 1.0)
    return (
        f'<th scope="row">{_text(row.class_name)}</th><td>{_text(row.model_id)}</td>'
        f'<td class="number">{row.count:,}</td>'
        f'<td class="number"><meter value="{share:.4f}" aria-hidden="true"></meter>'
        f"{_confidence(row.average)}</td>"
        f'<td class="number">{_confidence(row.maximum)}</td>'
        f"<td>{_time(row.last_seen_us)}</td>"
    )


def _windows(rows: list[WindowRow]) -> str:
    if not rows:
        return ""
    columns = (
        "Aggregator",
        "Feed",
        "#Windows",
        "#Frames",
        "#Detections",
        "#Mean confidence",
        "Last seen",
    )
    return f"<h2>Windows</h2>{_table(columns, map(_window_row, rows))}"


def _window_row(row: WindowRow) -> str:
    feed = "all" if row.feed is None else _text(row.feed)
    least = "at least " if row.is_partial else ""
    return (
        f'<th scope="row">{_text(row.aggregator)}</th><td>{feed}</td>'
        f'<td class="number">{row.windows:,}</td>'
        f'<td class="number">{least}{row.frames:,}</td>'
        f'<td class="number">{least}{row.detections:,}</td>'
        f'<td class="number">{_confidence(row.average)}</td>'
        f"<td>{_time(row.last_seen_us)}</td>"
    )


def _metadata(rows: list[MetadataRow], model: str) -> str:
    if not rows:
        return _empty(
            "No metadata yet",
            f"None was attached to inferences of {_text(model)}."
            if model
            else "Fields that the custom metadata sink attaches to inferences "
            "appear here.",
        )
    note = f"<p>The latest {MAX_ROWS} values.</p>" if len(rows) == MAX_ROWS else ""
    columns = (
        "Field",
        "Value",
        "#Inferences",
        "#Of them reported",
        "Latest inference",
        "Last seen",
    )
    return _table(columns, map(_metadata_row, rows)) + note


def _metadata_row(row: MetadataRow) -> str:
    return (
        f'<th scope="row">{_text(row.field_name)}</th><td>{_text(row.field_value)}</td>'
        f'<td class="number">{row.inferences:,}</td>'
        f'<td class="number">{row.reported:,}</td>'
        f"<td><code>{_text(row.latest_inference_id)}</code></td>"
        f"<td>{_time(row.last_seen_us)}</td>"
    )


def _table(columns: Iterable[str], rows: Iterable[str]) -> str:
    """Write a table; a column named with a leading # holds numbers."""
    head = "".join(
        f'<th scope="col" class="number">{name[1:]}</th>'
        if name.startswith("#")
        else f'<th scope="col">{name}</th>'
        for name in columns
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _empty(title: str, text: str) -> str:
    return f'<div class="empty"><strong>{title}</strong>{text}</div>'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _at_most(rows: int) -> str:
    return f"{rows:,}+" if rows == MAX_ROWS else f"{rows:,}"


def _confidence(value: float | None) -> str:
    if value is None:
        return "&ndash;"
    return f"{value:.3f}" if abs(value) < _LONG_NUMBER else f"{value:.3g}"


def _time(microseconds: int) -> str:
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return f"<time>{moment:%Y-%m-%d %H:%M:%S}</time>"


def _text(value: str) -> str:
    """Escape text from a request, and keep its writing direction to itself."""
    if not value:
        return '<span class="soft">(empty)</span>'
    shown = value[:_SHOWN_CHARACTERS] + ("…" if len(value) > _SHOWN_CHARACTERS else "")
    return f"<bdi>{_attribute(shown)}</bdi>"


def _attribute(value: str) -> str:
    return html.escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", value))
