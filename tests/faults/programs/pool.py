"""Use the sink in the children of multiprocessing."""

from __future__ import annotations

import multiprocessing
import sys

from common import observe, say, sink

METHOD, CHILDREN = sys.argv[1], int(sys.argv[2])


def job(number):
    """Observe a window in a child."""
    observe(sink(), f"child-{number}")


if __name__ == "__main__":
    if METHOD == "fork":
        observe(sink(), "parent-once")
    context = multiprocessing.get_context(METHOD)
    children = [context.Process(target=job, args=(n,)) for n in range(CHILDREN)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    say("exits", *(child.exitcode for child in children))
