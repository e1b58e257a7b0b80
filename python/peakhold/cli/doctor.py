"""Check everything between a workflow here and the Model Monitoring endpoint.

Each line says what was found, ok, warn or fail, and what to do about it. Nothing is
sent but two requests without content, one of which asks for the workspace of the api
key, and questions to the Redis server by which windows are shared. No secret is ever
shown, and the host is looked for, not imported. The exit code is 1 if a check failed,
else 0.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

from peakhold.cli.errors import FAILED, one_line
from peakhold.cli.terminal import say

if TYPE_CHECKING:
    import argparse

    from peakhold.cli.findings import Finding

_NAME_WIDTH = len("supervision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--json", action="store_true", help="print the findings as JSON, at the end"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what each check found, each as soon as it is known."""
    from peakhold.cli.custody import check_outbox
    from peakhold.cli.installation import check_installation
    from peakhold.cli.reachability import check_reachability
    from peakhold.cli.sharing import check_sharing

    findings = []
    for finding in chain(
        check_installation(), [check_outbox()], check_sharing(), check_reachability()
    ):
        findings.append(finding)
        if not arguments.json:
            say(_line(finding))
    healthy = all(finding.status != "fail" for finding in findings)
    if arguments.json:
        checks = [asdict(finding) for finding in findings]
        say(json.dumps({"healthy": healthy, "checks": checks}))
    return 0 if healthy else FAILED


def _line(finding: Finding) -> str:
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    text = one_line(f"{finding.text}{remedy}")
    return f"{finding.status:<4}  {finding.check:<{_NAME_WIDTH}}  {text}"
