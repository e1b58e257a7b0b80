"""The properties of the blocks, as models of the host's own base class and kinds.

Importing this module imports the host and fixes under which identifiers the blocks run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (  # type: ignore[import-not-found,unused-ignore]  # the host's
    AfterValidator,
    ConfigDict,
    Field,
)

from peakhold.workflows import declarations, descriptions
from peakhold.workflows.host import find_host
from peakhold.workflows.identity import (
    AGGREGATOR,
    AGGREGATOR_OF_FEEDS,
    CUSTOM_METADATA,
    taken_identifiers,
)

if TYPE_CHECKING:
    from typing import TypeAlias

_HOST = find_host()
_TAKEN = taken_identifiers(_HOST)
_TYPES = _HOST.part("execution_engine.entities.types")

WorkflowBlockManifest: Any = _HOST.part("prototypes.block").WorkflowBlockManifest
_platform_model = _HOST.optional("prototypes.block", "roboflow_platform_model")
_RuntimeRestriction = _HOST.optional("prototypes.block", "RuntimeRestriction")
_WorkOperation = _HOST.optional("execution_engine.entities.workload", "WorkOperation")
_Discovery = _HOST.optional("execution_engine.entities.workload", "Discovery")
_actual = _HOST.optional("prototypes.block", "actual_restrictions_of")


def _at_least_one(value: Any) -> Any:
    if isinstance(value, int) and value < 1:
        raise ValueError("`frequency` cannot be lower than 1.")
    return value


def _not_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("`model_id` cannot be empty.")
    return value


if TYPE_CHECKING:
    # The host's selectors are types that are only known at run time.
    AggregatorType: TypeAlias = Any
    AggregatorOfFeedsType: TypeAlias = Any
    CustomMetadataType: TypeAlias = Any
    Predictions: TypeAlias = Any
    ModelId: TypeAlias = Any
    Frequency: TypeAlias = Any
    FieldValue: TypeAlias = Any
    Image: TypeAlias = Any
    Feed: TypeAlias = Any
    Switch: TypeAlias = Any
else:
    _TEXT = _TYPES.Selector(kind=[_TYPES.STRING_KIND])
    AggregatorType = Literal[AGGREGATOR.identifiers(_TAKEN)]
    AggregatorOfFeedsType = Literal[AGGREGATOR_OF_FEEDS]
    CustomMetadataType = Literal[CUSTOM_METADATA.identifiers(_TAKEN)]
    Predictions = _TYPES.Selector(kind=declarations.prediction_kinds(_HOST))
    ModelId = Annotated[
        _TYPES.Selector(kind=[_TYPES.ROBOFLOW_MODEL_ID_KIND]) | str,
        AfterValidator(_not_empty),
    ]
    Frequency = Annotated[int | _TEXT, AfterValidator(_at_least_one)]
    FieldValue = str | _TEXT
    Image = _TYPES.Selector(kind=[_TYPES.IMAGE_KIND]) | None
    Feed = str | _TEXT | None
    Switch = bool | _TYPES.Selector(kind=[_TYPES.BOOLEAN_KIND])

_PREDICTIONS_EXAMPLES = [
    "$steps.object_detection.predictions",
    "$steps.classification.predictions",
    "$steps.instance_segmentation.predictions",
]


def _about(
    name: str,
    short: str,
    long: str,
    *,
    in_place: bool,
    version: str = "v1",
    **ui: Any,
) -> Any:
    """Return what editors show. Beside its reference a block says whose it is."""
    return ConfigDict(
        json_schema_extra={
            "name": name if in_place else f"{name} (peakhold)",
            "version": version,
            "short_description": short,
            "long_description": long,
            "license": "Apache-2.0",
            "block_type": "sink",
            "ui_manifest": {"section": "advanced", **ui, "requires_rf_key": True},
        }
    )


class _SinkManifest(WorkflowBlockManifest):  # type: ignore[misc]  # the host's class
    """What both manifests declare alike."""

    @classmethod
    def get_air_gapped_availability(cls) -> Any:
        return declarations.air_gapped_availability(_HOST)

    @classmethod
    def describe_outputs(cls) -> list[Any]:
        return declarations.status_outputs(_HOST)

    @classmethod
    def get_execution_engine_compatibility(cls) -> str:
        return ">=1.3.0,<2.0.0"


class AggregatorManifest(_SinkManifest):
    """Properties of the Model Monitoring Inference Aggregator."""

    model_config = _about(
        "Model Monitoring Inference Aggregator",
        descriptions.AGGREGATOR_SHORT,
        descriptions.AGGREGATOR_LONG,
        in_place=AGGREGATOR.is_free(_TAKEN),
        icon="fal fa-chart-line",
        blockPriority=8.5,
    )
    type: AggregatorType
    predictions: Predictions = Field(
        description=descriptions.PREDICTIONS, examples=_PREDICTIONS_EXAMPLES
    )
    model_id: ModelId = Field(
        description=descriptions.MODEL_ID,
        examples=["my_project/3", "$inputs.model_id"],
    )
    frequency: Frequency = Field(
        default=5, description=descriptions.FREQUENCY, examples=[3, 5, 10, 30, 60]
    )
    unique_aggregator_key: str = Field(
        description=descriptions.UNIQUE_AGGREGATOR_KEY,
        examples=["session-1v73kdhfse"],
        json_schema_extra={"hidden": True},
    )
    fire_and_forget: Switch = Field(
        default=True, description=descriptions.FIRE_AND_FORGET, examples=[True, False]
    )

    if _platform_model is not None:

        def discover_dependent_resources(self) -> list[Any]:
            """Name the model that reports are about."""
            return declarations.model_access(_HOST, self.model_id)

    if _RuntimeRestriction is not None:

        @classmethod
        def get_restrictions(cls) -> list[Any]:
            """Say where windows get split; editors show it."""
            return declarations.aggregation_restrictions(_HOST, any_execution=False)

    if _WorkOperation is not None:

        def discover_work_operations(self) -> list[Any]:
            """Name what the step does."""
            return [
                _WorkOperation.DATA_AGGREGATION,
                _WorkOperation.EXTERNAL_REQUEST,
                _WorkOperation.TEMPORAL_BUFFERING,
            ]

    if _actual is not None:

        def get_actual_restrictions(
            self, *, ignore_environment_restrictions: bool = False
        ) -> Any:
            """Say where windows get split, whatever runs the models."""
            return _actual(
                declared=declarations.aggregation_restrictions(
                    _HOST, any_execution=True
                ),
                node_id=f"$steps.{self.name}",
                ignore_environment_restrictions=ignore_environment_restrictions,
            )


class AggregatorOfFeedsManifest(AggregatorManifest):
    """Properties of the aggregator that has a window per feed."""

    model_config = _about(
        "Model Monitoring Inference Aggregator",
        descriptions.AGGREGATOR_OF_FEEDS_SHORT,
        descriptions.AGGREGATOR_OF_FEEDS_LONG,
        in_place=AGGREGATOR.is_free(_TAKEN),
        version="v2",
        icon="fal fa-chart-line",
        blockPriority=8.5,
    )
    type: AggregatorOfFeedsType
    image: Image = Field(
        default=None,
        description=descriptions.IMAGE,
        examples=["$inputs.image"],
    )
    feed: Feed = Field(
        default=None,
        description=descriptions.FEED,
        examples=["gate 3", "$inputs.camera"],
    )


class CustomMetadataManifest(_SinkManifest):
    """Properties of Roboflow Custom Metadata."""

    model_config = _about(
        "Roboflow Custom Metadata",
        descriptions.CUSTOM_METADATA_SHORT,
        descriptions.CUSTOM_METADATA_LONG,
        in_place=CUSTOM_METADATA.is_free(_TAKEN),
        icon="fal fa-analytics",
        blockPriority=8,
    )
    type: CustomMetadataType
    predictions: Predictions = Field(
        description=descriptions.PREDICTIONS, examples=_PREDICTIONS_EXAMPLES
    )
    field_name: str = Field(
        description=descriptions.FIELD_NAME, examples=["place", "shift", "camera"]
    )
    field_value: FieldValue = Field(
        description=descriptions.FIELD_VALUE,
        examples=["gate 3", "night", "$steps.expression.output"],
    )
    fire_and_forget: Switch = Field(
        default=True, description=descriptions.FIRE_AND_FORGET, examples=[True, False]
    )

    if _WorkOperation is not None:

        def discover_work_operations(self) -> list[Any]:
            """Name what the step does."""
            return [_WorkOperation.EXTERNAL_REQUEST]

        def discover_dependent_resources(self) -> list[Any]:
            """Name nothing: inference ids need no model."""
            return []

    if _Discovery is not None:

        def get_actual_restrictions(
            self,
            *,
            ignore_environment_restrictions: bool = False,  # noqa: ARG002 - the host's signature
        ) -> Any:
            """Say that there are none."""
            return _Discovery[_RuntimeRestriction](
                items=[], complete=True, unknown_reasons=[]
            )
