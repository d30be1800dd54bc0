"""Settings of every test: one thread for each worker (equal results, no crowding), no hub, no telemetry."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import plumbline  # noqa: F401  # switches telemetry off
from tests.chromium import CHROMIUM, CHROMIUM_ARGUMENTS

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile("fixed")
"""The same inputs in every run; `pytest --hypothesis-profile explore` looks for others."""

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: trainers call it whenever they start training."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared() -> Path:
    """The folder of real data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the real data are not beside this repository (../shared/data)")
    return SHARED


@pytest.fixture(scope="session")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new store's file, to be copied: making the tables takes longer than most tests."""
    from plumbline.preferences.store import Store  # most tests need none

    path = tmp_path_factory.mktemp("new") / "preferences.db"
    Store.open(path).close()
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests of a process: Playwright cannot be started a second time beside itself."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()
