"""The Python blocks of README and docs run as they are printed.

Each block runs in an interpreter of its own, against an endpoint on this machine.
"""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python$\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(code, id=f"{page.relative_to(ROOT).as_posix()}:{number}")
    for page in PAGES
    for number, code in enumerate(blocks_of(page), 1)
]


class Endpoint(BaseHTTPRequestHandler):
    """Answers as the API does and keeps the bodies that were posted."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path.partition("?")[0], json.loads(body)))
        self.answer()

    def answer(self):
        body = b'{"workspace": "documented"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Keep the test's output clean."""


@pytest.fixture
def endpoint():
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        server.posted = []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run_block(code, endpoint):
    environment = os.environ | {
        "API_BASE_URL": f"http://127.0.0.1:{endpoint.server_port}",
        "ROBOFLOW_API_KEY": "documented-key",
        "NO_PROXY": "127.0.0.1",
    }
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer


@pytest.mark.parametrize("code", BLOCKS)
def test_a_documented_block_runs(code, endpoint):
    assert "Traceback" not in run_block(code, endpoint).stderr


def test_the_readme_example_reports_its_peak(endpoint):
    (code,) = blocks_of(ROOT / "README.md")
    run_block(code, endpoint)
    ((path, report),) = endpoint.posted
    assert path == "/documented/inference-stats"
    (result,) = report["inference_results"]
    assert (result["class_name"], round(result["confidence"], 2)) == ("car", 0.87)


def test_the_readme_example_has_about_fifteen_lines():
    (code,) = blocks_of(ROOT / "README.md")
    assert len(code.splitlines()) <= 15


@pytest.mark.parametrize(
    "broken", ["import peakhold_", "assert 1 == 2", "raise SystemExit(3)"]
)
def test_a_broken_block_is_noticed(broken, endpoint):
    with pytest.raises(AssertionError):
        run_block(broken, endpoint)


def test_each_block_of_a_page_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\na = 1\n```\ntext\n```sh\nls\n```\n```python\nb\n```\n")
    assert blocks_of(page) == ["a = 1\n", "b\n"]


def missing_paths(text):
    named = re.findall(r"`((?:rust|python|tests|scripts|benches|docs)/[\w./]+)`", text)
    return [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_the_files_a_page_names_are_there(page):
    assert missing_paths(page.read_text(encoding="utf-8")) == []


def test_a_file_that_is_gone_is_noticed():
    assert missing_paths("`rust/lib.rs`, `rust/gone.rs`") == ["rust/gone.rs"]
