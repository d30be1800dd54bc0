"""How long the quality report takes on a large store, in a new process.

python -m benchmarks.annotate.scale_store big.db
python -m benchmarks.annotate.quality_scale big.db
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

from plumbline.preferences.quality import Quality
from plumbline.preferences.store import Store


def timed(name: str, call: Callable[[], object]) -> None:
    """Call and print the time."""
    began, busy = time.perf_counter(), time.process_time()
    call()
    print(
        f"{name:<46} {time.perf_counter() - began:6.2f} s, {time.process_time() - busy:6.2f} s of a processor",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time the quality report.")
    parser.add_argument("store", help="file or URL")
    parser.add_argument("--project", default="support")
    arguments = parser.parse_args()
    quality = Quality(Store.open(arguments.store, create=False), project=arguments.project)
    timed("first report, reliability in the background", lambda: quality.report(wait=False))
    timed("wait for reliability", lambda: quality.report(wait=True))
    timed("again, nothing answered since", lambda: quality.report(wait=True))
    quality._figures._state = None  # as if something had been answered
    timed("again, after an answer", lambda: quality.report(wait=True))
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
