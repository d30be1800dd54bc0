"""Logs go to the run folder; the terminal keeps what a person needs."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import datetime
from pathlib import Path

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


def quieten() -> None:
    """Switch off the libraries' chatter on the terminal, unless the user's environment asks for it."""
    warnings.simplefilter("ignore", FutureWarning)  # what libraries say to each other about coming versions
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def log_to_run(root: Path, command: str) -> Path:
    """Send logs and warnings of every library to `<run>/logs/<time>-<command>.log`; return that file."""
    folder = root / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now():%Y%m%d-%H%M%S}-{command}.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root_logger = logging.getLogger()
    root_logger.handlers = [handler]
    root_logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    quieten_libraries()
    return path


def quieten_libraries() -> None:
    """Libraries that print to the terminal by themselves only log."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
