"""A video file with motion in it: a photograph, and a piece of it that moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
from matplotlib import cbook

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 320, 240
PIECE = 80
STILL = 10
"""Frames before the piece starts to move, for the background to be learnt."""


def make_video(path: Path, frames: int, *, moving: bool = True, ahead: int = 0) -> Path:
    """Write a video of `frames` frames and return its path.

    The piece is where it would be so many frames `ahead`. The photograph is one that
    every host's dependencies bring.
    """
    found = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    photograph = cv2.imread(str(found))
    background = cv2.resize(photograph, SIZE)
    piece = cv2.flip(background, -1)[:PIECE, :PIECE]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, SIZE)
    assert writer.isOpened()
    for number in range(frames):
        image = background.copy()
        if moving and number >= STILL:
            left = 7 * (number + ahead) % (SIZE[0] - PIECE)
            image[60 : 60 + PIECE, left : left + PIECE] = piece
        writer.write(image)
    writer.release()
    return path
