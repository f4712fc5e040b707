"""Keeps the memory of a training on a CPU from growing with every new length of a batch. For Linux with glibc; elsewhere nothing is done.

Batches of text have ever new lengths, and each new shape of a matrix product costs memory twice:

* oneDNN, and torch's layer above it, keep what they prepared for a shape, up to 1,024 shapes each. The limit counts shapes, not bytes:
  gigabytes lie there before it is reached. A step needs a few dozen.
* glibc asks the system for a large block of its own, which goes back as soon as it is free, only above a threshold, and raises that to
  the size of any such block that was freed, up to 32 MB. Then tensors lie in the heap, whose holes fit no tensor of another length, and
  only its end ever goes back. A threshold that was set stays.
"""

from __future__ import annotations

import ctypes
import os
import sys

SHAPES = "64"  # prepared matrix products that are kept
BLOCK = 1 << 20  # bytes; larger blocks are the system's
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def bound_memory() -> None:
    """Call it before torch is imported. What the environment says already is left as it is."""
    if sys.platform != "linux":
        return
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, SHAPES)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, BLOCK)
        mallopt(_M_TRIM_THRESHOLD, BLOCK)
