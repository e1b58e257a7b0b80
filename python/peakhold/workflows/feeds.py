"""Which feed an image of the host is of."""

from __future__ import annotations

from typing import Any

from peakhold.delivery import current

_OF_A_CROP = " | crop:"
"""What hosts put between the identifier of a video and that of a crop."""


def feed_of(image: Any) -> str | None:
    """Return the feed that a ``WorkflowImageData`` is of; None if nothing names it.

    It is the identifier of its video: the number of the source in an
    ``InferencePipeline``, or what the caller of a server says. A crop whose host keeps
    the video of the whole image is of the same feed. An image without a video has its
    own id for an identifier, which is that of a crop or a place in the batch, and
    names no feed. What cannot be read is counted, and warned of.
    """
    try:
        feed = image.video_metadata.video_identifier
        image_id = image.parent_metadata.parent_id
        if feed == image_id:
            return None
        if image_id != image.workflow_root_ancestor_metadata.parent_id:
            feed = feed.partition(_OF_A_CROP)[0]
        if isinstance(feed, str):
            return feed or None
        error = f"it is of type {type(feed).__name__}"
    except Exception as raised:  # noqa: BLE001 - of a host's object; frames go on
        error = f"{type(raised).__name__}: {raised}"
    current().notices.warn(
        "feed",
        "The feed of an image cannot be read (%s): its frame goes to the common "
        "window. Give the step the image of the workflow, or name the feed in `feed`",
        error,
    )
    return None
