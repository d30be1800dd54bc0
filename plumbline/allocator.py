"""Memory of the C library's allocator, which training on a CPU asks for and frees again thousands of times a second."""

from __future__ import annotations

import ctypes
import platform

# Names and numbers of <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def reuse_freed_memory() -> None:
    """Keep freed blocks for the next ones instead of giving them back to the system; glibc only, elsewhere nothing.

    As it comes, glibc gets every block above 32 MiB from the system and gives it back when it is freed, so that each
    temporary tensor is mapped and zeroed page by page again: this was up to half of the time of a training step on two
    cores. The process keeps at most what it held at its peak, for as long as it lives. The setting is for what is
    allocated from then on, so call it early.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    if not mallopt(_MMAP_THRESHOLD, 2**30):
        return  # an older glibc, which takes no such threshold; the other settings alone would do harm
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
