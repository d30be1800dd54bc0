"""Kills the chain with SIGKILL at random moments of every stage, runs it again each time, and prints what came of it.

    python -m tests.kill_chain RECIPE RUN_FOLDER SEED [STAGE ...]

With stages, only inside these. Everything is imported once; each attempt is a forked child, so that an attempt costs no
start. The last line printed is a JSON object: the stages' output hashes, how many attempts were killed inside each
stage, and what was found half written (which must be nothing).
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from plumbline.chain import Chain, read_recipe
from plumbline.runs import Manifest, Run, hash_folder

USED_BY_STAGES = ("sft", "reward", "rlhf.dpo", "rlhf.ppo", "plumbline.compare", "plumbline.preferences.snapshot")
KILLS_PER_STAGE = 3
PATIENCE = 60  # seconds to wait for a stage to begin


def attempt(recipe_path: Path, root: Path, until: str) -> int:
    """Fork a child that runs the chain to a stage; return its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        recipe = read_recipe(recipe_path)
        Chain(recipe, recipe_path, Run(root), lambda line: None).run_stages(until=until)
        status = 0
    finally:
        os._exit(status)


def ended(child: int) -> bool:
    """Whether a child ended by itself."""
    return os.waitpid(child, os.WNOHANG)[0] == child


def kill_inside(child: int, partial: Path, delay: float) -> bool:
    """Wait until a stage has begun, then a little, then kill; return whether the child was still at it."""
    deadline = time.monotonic() + PATIENCE
    while not partial.exists():
        if ended(child) or time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    time.sleep(delay)
    if ended(child):
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def half_written(root: Path) -> list[str]:
    """Stage folders that are there and not whole."""
    found = []
    for folder in root.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and folder.name != "logs":
            manifest = Manifest.read(folder)
            if manifest is None or manifest.output_hash != hash_folder(folder):
                found.append(folder.name)
    return found


def main() -> None:
    """Kill and run again, stage by stage."""
    recipe_path, root, rng = Path(sys.argv[1]), Path(sys.argv[2]), random.Random(int(sys.argv[3]))
    tempfile.tempdir = str(recipe_path.parent)  # what is killed leaves temporary folders
    for module in USED_BY_STAGES:
        importlib.import_module(module)
    recipe = read_recipe(recipe_path)
    stages = sys.argv[4:] or Chain(recipe, recipe_path, Run(root), lambda line: None).names()
    killed = dict.fromkeys(stages, 0)
    broken: list[str] = []
    for stage in stages:
        for _ in range(KILLS_PER_STAGE):
            child = attempt(recipe_path, root, stage)
            killed[stage] += kill_inside(child, root / f".partial-{stage}", rng.uniform(0, 0.8))
            broken += half_written(root)
        if os.waitpid(attempt(recipe_path, root, stage), 0)[1] != 0:
            sys.exit(f"the chain did not go on after kills in {stage}")
    hashes = {stage: Manifest.read(root / stage).output_hash for stage in stages}
    left = [path.name for path in root.iterdir() if path.name.startswith((".partial", ".old"))]
    print(json.dumps({"hashes": hashes, "killed": killed, "half_written": broken, "left": left}))


if __name__ == "__main__":
    main()
