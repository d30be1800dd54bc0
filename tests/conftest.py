"""Settings of every test: one thread for each worker (equal results, no crowding), no hub, no telemetry."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import plumbline  # noqa: F401  # switches telemetry off
