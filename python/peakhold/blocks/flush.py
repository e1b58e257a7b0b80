"""Delivering everything at the end of a job, before the end of the process."""

from __future__ import annotations

from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current


def flush(timeout: float = 10.0) -> bool:
    """Close every open window, and wait until this process has nothing to deliver.

    For the end of a job in a worker that is stopped or recycled without Python's exit
    handlers, as those of job queues are. Windows are reported whatever their interval
    says, as at exit, and go on empty. What does not go out in time stays in the outbox
    and is tried again.

    Args:
        timeout: Seconds to wait for deliveries.

    Returns:
        Whether nothing is left. False before the time is over means that nothing more
        could go out within it, as while an endpoint is down or refuses the api key.

    Raises:
        ValueError: If ``timeout`` is negative or NaN, or a variable of the environment
            cannot be used.
    """
    if not timeout >= 0:
        raise ValueError(f"`timeout` must be a number of seconds >= 0, not {timeout}")
    dispatcher = current()
    REGISTRY.flush_all()
    dispatcher.pack_metadata()
    return dispatcher.flush(timeout)
