"""Seeds for the parts of a work that each have a random state of their own."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, part: int) -> int:
    """The seed of part number `part` (a batch, an epoch), below 2**56.

    It is a hash of both: with `seed + part`, the second epoch of seed 1 would be the first one of seed 2.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{part}".encode()).digest()[:7], "big")
