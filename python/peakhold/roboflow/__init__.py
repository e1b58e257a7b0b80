"""Client of the Roboflow API: the only code of peakhold that uses the network.

Importing this package does not import requests; constructing a client does.
"""

from peakhold.roboflow.api_key import ApiKey
from peakhold.roboflow.client import RoboflowClient
from peakhold.roboflow.errors import (
    ConnectionFailedError,
    ForbiddenError,
    MalformedResponseError,
    NotAuthorizedError,
    NotFoundError,
    OfflineError,
    PausedError,
    PaymentRequiredError,
    RequestTimeoutError,
    RoboflowError,
    TlsFailedError,
    UnexpectedStatusError,
)
from peakhold.roboflow.settings import Settings

__all__ = [
    "ApiKey",
    "ConnectionFailedError",
    "ForbiddenError",
    "MalformedResponseError",
    "NotAuthorizedError",
    "NotFoundError",
    "OfflineError",
    "PausedError",
    "PaymentRequiredError",
    "RequestTimeoutError",
    "RoboflowClient",
    "RoboflowError",
    "Settings",
    "TlsFailedError",
    "UnexpectedStatusError",
]
