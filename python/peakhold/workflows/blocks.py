"""The blocks as their host expects them. Importing this module imports the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peakhold import blocks
from peakhold.blocks.handover import Sink
from peakhold.delivery import Sender
from peakhold.roboflow.api_key import without_locals
from peakhold.workflows.clients import inference_client, injected_client
from peakhold.workflows.feeds import feed_of
from peakhold.workflows.host import CORE, find_host
from peakhold.workflows.manifests import (
    AggregatorManifest,
    AggregatorOfFeedsManifest,
    CustomMetadataManifest,
)

if TYPE_CHECKING:
    from peakhold.blocks.handover import SinkResult
    from peakhold.delivery.cache import Cache
    from peakhold.roboflow import ApiKey
    from peakhold.roboflow.operations import PlatformClient

_HOST = find_host()
WorkflowBlock: Any = _HOST.part("prototypes.block").WorkflowBlock

_GIVEN = frozenset(_HOST.part("core_steps.loader").REGISTERED_INITIALIZERS)


class _HostedSink(Sink):
    """A sink that sends as its host does, and is made as its host makes blocks.

    A host that names init parameters by plugin keeps from it what it gives its own
    blocks: the key of the request, its background tasks, that sinks are disabled. It
    finds them all the same, by their full names.
    """

    @without_locals
    def __init__(self, *args: Any, **parameters: Any) -> None:
        """See ``Sink``; a name may have the prefix of the host's own blocks."""
        hosts = {
            name: parameters.pop(f"{CORE}.{name}")
            for name in super().get_init_parameters()
            if f"{CORE}.{name}" in parameters
        }
        for name, value in hosts.items():
            # What was not given to the plugin by name is the host's default.
            if name not in parameters or (
                parameters[name] is _HOST.init_parameter(name)
            ):
                parameters[name] = value
        super().__init__(*args, **parameters)

    @classmethod
    def get_init_parameters(cls) -> list[str]:
        """Return the constructor's parameters that this host has values for."""
        names = [name for name in super().get_init_parameters() if name in _GIVEN]
        if _HOST.names_by_plugin:
            names += [f"{CORE}.{name}" for name in names]
        return names

    def _make_sender(
        self,
        cache: Cache,
        api_key: ApiKey | str | None,
        platform_client: PlatformClient | None,
    ) -> Sender | None:
        injected = injected_client(platform_client, _HOST)
        client = inference_client()
        if client is None:
            return super()._make_sender(cache, api_key, injected)
        # inference gives its blocks the key of the request, or that of the environment:
        # without one, a request must not report with the key of somebody else.
        if not api_key:
            return None
        if injected is not None:
            return Sender(injected, api_key, cache, injected=True)
        return Sender(client, api_key, cache, injected=False)


class ModelMonitoringInferenceAggregatorBlockV1(
    _HostedSink,
    blocks.ModelMonitoringInferenceAggregatorBlockV1,
    WorkflowBlock,  # type: ignore[misc]  # the host's class
):
    """The aggregator as a step of a workflow."""

    @classmethod
    def get_manifest(cls) -> type:
        """Return the properties of the step."""
        return AggregatorManifest


class ModelMonitoringInferenceAggregatorBlockV2(
    ModelMonitoringInferenceAggregatorBlockV1
):
    """The aggregator as a step that has a window per feed."""

    @classmethod
    def get_manifest(cls) -> type:
        """Return the properties of the step."""
        return AggregatorOfFeedsManifest

    def run(
        self,
        fire_and_forget: bool,
        predictions: Any,
        frequency: float | str,
        unique_aggregator_key: object,
        model_id: str,
        feed: object = None,
        image: Any = None,
    ) -> SinkResult:
        """Take a frame in as the first version does, into the window of its feed.

        Args:
            fire_and_forget: See the first version; likewise what follows.
            predictions: Of a frame.
            frequency: Seconds between two reports of a window.
            unique_aggregator_key: Names the window, together with the feed.
            model_id: The model that made the predictions.
            feed: Names the feed; None and ``""`` leave that to the image.
            image: Image of the frame, whose video names the feed.
        """
        unnamed = feed is None or (isinstance(feed, str) and not feed)
        if unnamed and image is not None:
            feed = feed_of(image)
        return super().run(
            fire_and_forget,
            predictions,
            frequency,
            unique_aggregator_key,
            model_id,
            feed,
        )


class RoboflowCustomMetadataBlockV1(
    _HostedSink,
    blocks.RoboflowCustomMetadataBlockV1,
    WorkflowBlock,  # type: ignore[misc]  # the host's class
):
    """Custom metadata as a step of a workflow."""

    @classmethod
    def get_manifest(cls) -> type:
        """Return the properties of the step."""
        return CustomMetadataManifest
