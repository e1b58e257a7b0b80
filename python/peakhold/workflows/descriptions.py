"""What the editors of the hosts show about the blocks."""

from __future__ import annotations

AGGREGATOR_SHORT = (
    "Report the most confident prediction of each class to Roboflow Model Monitoring, "
    "every few seconds."
)
AGGREGATOR_LONG = """
Keeps, for every class, the most confident prediction since the last report, and sends
these to Roboflow Model Monitoring once per interval: one small request, however many
frames and detections there were.

- **What is kept.** One prediction per class across all models of the window: its
  confidence, inference id, model and type. Memory grows with the number of classes, not
  with frames or detections.
- **When it is sent.** When `frequency` seconds have passed since the last report. A
  stream that stops has its last window sent, too, and so has a program that ends.
- **Who shares a window.** All steps of one process with the same api key and
  `unique_aggregator_key`, so also the requests of an HTTP server. Several processes
  have a window each.
- **If the API is away.** Reports wait on disk, where they outlive the process, and are
  sent again with growing pauses.

With `fire_and_forget` the report is sent in the background and the step answers at
once. Without it the step waits, and `error_status` and `message` tell the outcome.

A Roboflow API key is needed: see
https://docs.roboflow.com/api-reference/authentication#retrieve-an-api-key
"""

AGGREGATOR_OF_FEEDS_SHORT = (
    "Report the most confident prediction of each class and feed to Roboflow Model "
    "Monitoring, every few seconds."
)
AGGREGATOR_OF_FEEDS_LONG = (
    AGGREGATOR_LONG
    + """
Unlike the first version, this one has a window for each feed, as a camera is one:

- **Which feed.** That of `image`, the image of the workflow, or what `feed` says.
  Frames without either, and with images that name none, have a common window, as in the
  first version.
- **Where it shows.** The inferences that are reported get its name as the custom
  metadata `feed`.
"""
)

CUSTOM_METADATA_SHORT = (
    "Attach a field and its value to inferences in Roboflow Model Monitoring."
)
CUSTOM_METADATA_LONG = """
Registers a name and a value, like a place, a shift or the verdict of another step, for
the inferences that made the predictions, so that Model Monitoring can be searched and
filtered by them.

- **Which inferences.** Those whose ids the predictions carry. Predictions without any
  make the step answer with an error.
- **Few requests.** With `fire_and_forget` the ids of many frames that get the same name
  and value go out in one request, in the background.

Without `fire_and_forget` the step waits for the API, and `error_status` and `message`
tell the outcome.

A Roboflow API key is needed: see
https://docs.roboflow.com/api-reference/authentication#retrieve-an-api-key
"""

PREDICTIONS = (
    "Predictions of an object detection, instance segmentation, keypoint detection or "
    "classification model."
)
MODEL_ID = (
    "The model that made the predictions, as project and version. Model Monitoring "
    "shows them under it."
)
FREQUENCY = "Seconds between two reports; at least 1."
UNIQUE_AGGREGATOR_KEY = (
    "Names the window. Steps with the same key share one, and the time of the last "
    "report is kept under it. Editors make one up."
)
IMAGE = (
    "The image of the workflow, which names its feed: the number of the source in an "
    "InferencePipeline, or the video identifier that the caller of a server gives. "
    "Crops of parts that are found in the image name none."
)
FEED = (
    "Name of the feed, in place of what the image says: a text, or what another step "
    "or an input gives."
)
FIELD_NAME = "Name of the field, under which Model Monitoring can be searched."
FIELD_VALUE = "Value of the field: a text, or what another step or an input gives."
FIRE_AND_FORGET = (
    "Whether to send in the background and answer at once. Turn it off to see in the "
    "outputs whether sending worked."
)

AGGREGATION_NOTE = (
    "A window holds what one process saw. On runtimes that spread the frames of a "
    "video over several replicas, or that stop between requests, each of them reports "
    "its own part, and the parts of one interval may arrive in different reports. "
    "Steady aggregation of a video needs one process, like an InferencePipeline."
)
