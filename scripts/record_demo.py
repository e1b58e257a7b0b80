# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib==3.11.2",
#     "numpy==2.4.6",
#     "opencv-python-headless==4.14.0.94",
#     "scikit-image==0.26.0",
#     "scikit-learn==1.9.1",
# ]
# ///
"""Record the detections that `peakhold demo` replays.

A camera pans, zooms and rolls over photographs that ship inside the wheels of
matplotlib, scikit-image and scikit-learn, and the Haar cascades that ship inside
OpenCV's wheel look at every frame. Nothing is downloaded, and the same wheels give
the same bytes. Run it with any runner that reads the block above, or install those
packages into an environment of its own:

    uv run scripts/record_demo.py
    python scripts/record_demo.py --draw frames/     # also look at it

Two models stand for two detectors watching one camera. `haar-faces/1` finds faces
(front and profile) and, inside a front face, eyes in its upper part and smiles in
its lower part. `haar-figures/1` finds cats' faces, upper bodies and full bodies.
False positives stay in: they are what a detector of this kind really reports.

A cascade answers with the sum of its last stage's weak classifiers, `w`, not with a
confidence. Boosting of this kind fits an additive logistic model (Friedman, Hastie
and Tibshirani, "Additive logistic regression", 2000), in which the odds of an object
grow as exp(2 w). That saturates for faces, so half the slope is recorded:

    confidence = 1 / (1 + exp(-w))        rounded to 4 places, below 0.25 left out

It orders what one cascade found; it is not calibrated, least of all across cascades.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

# Not a dependency of the project: only this script wants OpenCV.
import cv2  # type: ignore[import-not-found,unused-ignore]
import numpy as np
import numpy.typing as npt

VIEW = (480, 270)
FRAMES_PER_SCENE = 150
MIN_CONFIDENCE = 0.25
RECORDING = (
    Path(__file__).resolve().parent.parent
    / "python/peakhold/cli/recordings/cascades.jsonl.gz"
)

Image = npt.NDArray[Any]


class Box(NamedTuple):
    """A rectangle in pixels of the view."""

    left: int
    top: int
    right: int
    bottom: int


class Detection(NamedTuple):
    """What a cascade found."""

    class_name: str
    confidence: float
    xyxy: Box


@dataclass(frozen=True)
class Scene:
    """One photograph, and how far the camera goes into it."""

    name: str
    picture: Image
    focus: tuple[float, float]  # where the camera hovers, as a share of the picture
    reach: float  # half-width of the pan, as a share of the picture
    zoom: tuple[float, float]  # widest and closest, 1 = the view shows all of the width
    tilt: float = 0.0  # degrees at which the camera is held


def photograph(package: str, path: str) -> Image:
    """Read one picture out of an installed wheel."""
    resource = files(package).joinpath(path)
    picture: Image | None = cv2.imdecode(
        np.frombuffer(resource.read_bytes(), np.uint8), cv2.IMREAD_COLOR
    )
    if picture is None:
        message = f"{package}/{path} is not a picture"
        raise SystemExit(message)
    return picture


def crowd() -> Image:
    """Lay scikit-image's 100 little faces out as a crowd, ten by ten, enlarged."""
    with files("skimage").joinpath("data/lfw_subset.npy").open("rb") as file:
        faces = np.load(file)[:100]
    tiles = [
        cv2.copyMakeBorder(
            cv2.resize(
                (face * 255).astype(np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC
            ),
            *(8, 8, 8, 8),
            cv2.BORDER_REPLICATE,
        )
        for face in faces
    ]
    rows = [np.hstack(tiles[start : start + 10]) for start in range(0, 100, 10)]
    grid: Image = cv2.cvtColor(np.vstack(rows), cv2.COLOR_GRAY2BGR)
    return grid


def scenes() -> list[Scene]:
    """List the photographs in the order in which the camera visits them."""

    def scikit(name: str) -> Image:
        return photograph("skimage", f"data/{name}")

    def learn(name: str) -> Image:
        return photograph("sklearn.datasets", f"images/{name}")

    hopper = photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")
    return [
        Scene("astronaut", scikit("astronaut.png"), (0.45, 0.3), 0.08, (0.8, 1.5)),
        Scene("chelsea", scikit("chelsea.png"), (0.5, 0.45), 0.06, (0.42, 0.66), 8.0),
        Scene("crowd", crowd(), (0.5, 0.5), 0.3, (1.2, 2.6)),
        Scene("coffee", scikit("coffee.png"), (0.5, 0.5), 0.1, (1.0, 1.8)),
        Scene("grace_hopper", hopper, (0.5, 0.38), 0.08, (0.5, 1.1)),
        Scene("cameraman", scikit("camera.png"), (0.45, 0.4), 0.1, (0.8, 1.5)),
        Scene("motorcycle", scikit("motorcycle_left.png"), (0.6, 0.5), 0.15, (1, 1.8)),
        Scene("china", learn("china.jpg"), (0.5, 0.5), 0.15, (1.0, 1.8)),
    ]


def view(scene: Scene, index: int) -> Image:
    """Return what the camera sees at one frame of its path over a scene.

    The path is a Lissajous figure with a slow zoom and a roll of up to four degrees.
    """
    turn = 2 * math.pi * index / FRAMES_PER_SCENE
    height, width = scene.picture.shape[:2]
    widest, closest = scene.zoom
    zoom = widest + (closest - widest) * (1 - math.cos(turn)) / 2
    scale = zoom * VIEW[0] / width
    centre = (
        width * (scene.focus[0] + scene.reach * math.sin(2 * turn)),
        height * (scene.focus[1] + scene.reach * math.sin(3 * turn)),
    )
    matrix = cv2.getRotationMatrix2D(centre, scene.tilt + 4 * math.sin(turn), scale)
    matrix[:, 2] += (VIEW[0] / 2 - centre[0], VIEW[1] / 2 - centre[1])
    seen: Image = cv2.warpAffine(
        scene.picture, matrix, VIEW, borderMode=cv2.BORDER_REPLICATE
    )
    return seen


class Cascade:
    """One cascade file of OpenCV's wheel, giving boxes with confidences."""

    def __init__(self, file: str, class_name: str, smallest: int, votes: int) -> None:
        """Load the file; `votes` is OpenCV's minNeighbors."""
        path = Path(cv2.data.haarcascades) / f"haarcascade_{file}.xml"
        self._classifier = cv2.CascadeClassifier(str(path))
        if self._classifier.empty():
            message = f"{path} is missing: OpenCV 5 has no cascades, install OpenCV 4"
            raise SystemExit(message)
        self._class_name = class_name
        self._smallest = smallest
        self._votes = votes

    def find(self, grey: Image, region: Box | None = None) -> list[Detection]:
        """Return the detections in a region, or everywhere."""
        left, top, right, bottom = region or Box(0, 0, grey.shape[1], grey.shape[0])
        boxes, _, weights = self._classifier.detectMultiScale3(
            grey[top:bottom, left:right],
            scaleFactor=1.1,
            minNeighbors=self._votes,
            minSize=(self._smallest, self._smallest),
            outputRejectLevels=True,
        )
        found = []
        for (x, y, w, h), weight in zip(boxes, np.ravel(weights), strict=True):
            confidence = round(1 / (1 + math.exp(-float(weight))), 4)
            if confidence >= MIN_CONFIDENCE:
                x1, y1 = left + int(x), top + int(y)
                box = Box(x1, y1, x1 + int(w), y1 + int(h))
                found.append(Detection(self._class_name, confidence, box))
        return found


class FaceModel:
    """Front and profile faces, and eyes and smiles where a front face puts them."""

    name = "haar-faces/1"

    def __init__(self) -> None:
        """Load the four cascades."""
        self._face = Cascade("frontalface_default", "face", 32, 4)
        self._profile = Cascade("profileface", "profile", 40, 4)
        self._eye = Cascade("eye", "eye", 12, 4)
        self._smile = Cascade("smile", "smile", 16, 12)

    def find(self, grey: Image) -> list[Detection]:
        """Return the detections of one grey frame."""
        faces = self._face.find(grey)
        found = [*faces, *self._profile.find(grey)]
        for face in faces:
            box = face.xyxy
            brow = box.top + (box.bottom - box.top) * 6 // 10
            found += self._eye.find(grey, box._replace(bottom=brow))
            found += self._smile.find(grey, box._replace(top=brow))
        return found


class FigureModel:
    """Cats' faces, upper bodies, full bodies."""

    name = "haar-figures/1"

    def __init__(self) -> None:
        """Load the three cascades."""
        self._cascades = (
            Cascade("frontalcatface_extended", "cat face", 64, 2),
            Cascade("upperbody", "upper body", 40, 3),
            Cascade("fullbody", "full body", 40, 3),
        )

    def find(self, grey: Image) -> list[Detection]:
        """Return the detections of one grey frame."""
        return [found for cascade in self._cascades for found in cascade.find(grey)]


def draw(frame: Image, detections: list[Detection]) -> Image:
    """Return a copy of a frame with its detections on it."""
    canvas: Image = frame.copy()
    for name, confidence, box in detections:
        cv2.rectangle(canvas, box[:2], box[2:], (0, 200, 0), 2)
        cv2.putText(
            canvas,
            f"{name} {confidence:.2f}",
            (box.left, box.top - 4),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.45,
            (0, 0, 255),
            1,
        )
    return canvas


def record(every: int, drawings: Path | None) -> list[str]:
    """Return one JSON line per frame and model, in the order of the frames."""
    models = (FaceModel(), FigureModel())
    lines = []
    for scene in scenes():
        counts: dict[str, int] = {}
        for index in range(0, FRAMES_PER_SCENE, every):
            frame = view(scene, index)
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            seen = []
            for model in models:
                detections = model.find(grey)
                seen += detections
                line = {
                    "image": f"{scene.name}/{index:03d}",
                    "model": model.name,
                    "detections": [
                        {"class": name, "confidence": confidence, "xyxy": box}
                        for name, confidence, box in detections
                    ],
                }
                lines.append(json.dumps(line, separators=(",", ":")))
            for name, _, _ in seen:
                counts[name] = counts.get(name, 0) + 1
            if drawings is not None and index % 50 == 0:
                path = drawings / f"{scene.name}-{index:03d}.png"
                cv2.imwrite(str(path), draw(frame, seen))
        print(f"{scene.name}: {counts}", flush=True)
    return lines


def main() -> None:
    """Write the recording, and pictures of it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=RECORDING)
    parser.add_argument("--draw", type=Path, help="folder for frames as PNG")
    parser.add_argument("--every", type=int, default=1, help="record every n-th frame")
    arguments = parser.parse_args()
    # Candidates are grouped in the order in which threads found them.
    cv2.setNumThreads(1)
    if arguments.draw is not None:
        arguments.draw.mkdir(parents=True, exist_ok=True)
    lines = record(arguments.every, arguments.draw)
    body = ("\n".join(lines) + "\n").encode()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    # No time and no file name in the header: the same lines give the same bytes.
    arguments.output.write_bytes(gzip.compress(body, 9, mtime=0))
    size = arguments.output.stat().st_size
    print(f"{len(lines)} lines, {size} bytes: {arguments.output}")


if __name__ == "__main__":
    main()
