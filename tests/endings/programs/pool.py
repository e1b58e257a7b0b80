"""Call a function of `frames` in workers of billiard, a new one for each task."""

from __future__ import annotations

import sys

import frames
from billiard.pool import Pool

if __name__ == "__main__":
    pool = Pool(1, maxtasksperchild=1)
    pool.map(getattr(frames, sys.argv[1]), sys.argv[2:], chunksize=1)
    pool.close()
    pool.join()
