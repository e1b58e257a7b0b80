"""A client that keeps a ledger of what the API acknowledged."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from peakhold.cli.errors import one_line
from peakhold.roboflow import RoboflowClient, RoboflowError, Settings


@dataclass
class ClassTotal:
    """What reports said about one class of one model."""

    count: int = 0
    total: float = 0.0
    maximum: float = float("-inf")


@dataclass
class Ledger:
    """What was acknowledged, and what failed.

    Attributes:
        reports: Reports, and windows that went to a monitor in place of them.
        classes: Their results by project part of the model id and class name.
        metadata_requests: Requests with metadata.
        metadata_ids: Inference ids in them.
        failures: Attempts that failed, by what went wrong.
    """

    reports: int = 0
    classes: dict[tuple[str, str], ClassTotal] = field(default_factory=dict)
    metadata_requests: int = 0
    metadata_ids: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class MeteredClient(RoboflowClient):
    """A `RoboflowClient` that enters every request into a ledger.

    Attributes:
        ledger: Written by the thread that delivers; read it when that is idle.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.ledger = Ledger()
        self._lock = threading.Lock()

    def send_report_body(
        self, api_key: str, workspace_id: str, body: bytes, idempotency_key: str
    ) -> None:
        """Send a report and enter its results."""
        try:
            super().send_report_body(api_key, workspace_id, body, idempotency_key)
        except RoboflowError as error:
            self._enter_failure(error)
            raise
        self._enter_results(json.loads(body)["inference_results"])

    def send_windows_body(
        self, api_key: str, workspace_id: str, body: bytes, idempotency_key: str
    ) -> None:
        """Send windows and enter each as a report of its peaks."""
        try:
            super().send_windows_body(api_key, workspace_id, body, idempotency_key)
        except RoboflowError as error:
            self._enter_failure(error)
            raise
        for each in json.loads(body)["windows"]:
            self._enter_results(each["window"]["peaks"])

    def send_metadata_body(
        self, api_key: str, workspace_id: str, body: bytes, idempotency_key: str
    ) -> None:
        """Send metadata and enter the number of its ids."""
        try:
            super().send_metadata_body(api_key, workspace_id, body, idempotency_key)
        except RoboflowError as error:
            self._enter_failure(error)
            raise
        ids = sum(len(entry["inference_ids"]) for entry in json.loads(body)["data"])
        with self._lock:
            self.ledger.metadata_requests += 1
            self.ledger.metadata_ids += ids

    def _enter_results(self, results: list[dict[str, Any]]) -> None:
        with self._lock:
            self.ledger.reports += 1
            for result in results:
                project = result["model_id"].partition("/")[0]
                key = (project, result["class_name"])
                total = self.ledger.classes.setdefault(key, ClassTotal())
                total.count += 1
                total.total += result["confidence"]
                total.maximum = max(total.maximum, result["confidence"])

    def _enter_failure(self, error: RoboflowError) -> None:
        with self._lock:
            self.ledger.failures[one_line(error)] += 1
