"""A small sweep over the settings of PPO in the embedded domain, one setting at a time.

    plumbline run domains/support/recipe.yaml --run demo
    python -m benchmarks.ppo_sweep --run runs/demo --output runs/sweep

Each setting trains from the run's SFT model against its reward model, and is judged by the domain's utility on the
validation prompts: the comparison's prompts are not touched, so that choosing by this table leaves its verdict honest.
Trainings that are done are not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from datasets import Dataset

from plumbline.allocator import reuse_freed_memory
from plumbline.chain import read_recipe
from plumbline.compare.run import compare
from plumbline.conversations import Split
from plumbline.domain import Domain
from plumbline.recipe import AlignSection
from plumbline.runs import Run
from rlhf.ppo.train import train_ppo

ROOT = Path(__file__).parents[1]

CENTRE = {"learning_rate": 2e-4, "kl_coef": 0.04, "num_ppo_epochs": 1, "num_mini_batches": 4}
"""The settings around which one is changed at a time."""

CHANGES: dict[str, dict[str, Any]] = {
    "centre": {},
    "learning_rate 1e-4": {"learning_rate": 1e-4},
    "learning_rate 4e-4": {"learning_rate": 4e-4},
    "kl_coef 0.02": {"kl_coef": 0.02},
    "kl_coef 0.08": {"kl_coef": 0.08},
    "2 epochs × 2": {"num_ppo_epochs": 2, "num_mini_batches": 2},
}
"""What each training changes of these."""


def train(domain: Domain, section: AlignSection, folder: Path, seed: int) -> dict[str, Any]:
    """Train with some settings, unless that is done; the stage's metrics."""
    done = folder / "metrics.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "scratch").mkdir(parents=True)
        metrics = train_ppo(
            domain.model_of("sft"),
            domain.model_of("reward"),
            _prompts(domain, "train"),
            _prompts(domain, "validation"),
            section,
            folder / "policy",
            folder / "scratch",
            seed=seed,
        )
        shutil.rmtree(folder / "scratch")
        done.write_text(json.dumps(metrics))
    return json.loads(done.read_text())


def _prompts(domain: Domain, split: Split) -> Dataset:
    return Dataset.from_list([{"prompt": row.prompt} for row in domain.prompts(split)])


def judge(domain: Domain, policies: dict[str, Path], folder: Path, responses: int) -> dict[str, Any]:
    """The comparison of all policies with the SFT model by the utility, on the validation prompts."""
    section = domain.recipe.compare.model_copy(update={"prompts": None, "responses_per_prompt": responses})
    assert domain.recipe.annotate.simulated is not None, "the recipe has no utility"
    folder.mkdir(parents=True, exist_ok=True)
    compare(
        {"sft": domain.model_of("sft"), **policies},
        baselines=["sft"],
        judge=None,
        utility=domain.recipe.annotate.simulated.utility,
        prompts=domain.prompts("validation"),
        section=section,
        folder=folder,
        scratch=folder,
        seed=domain.recipe.seed,
        facts={},
    )
    return json.loads((folder / "results.json").read_text())


def row(name: str, results: dict[str, Any], metrics: dict[str, Any]) -> str:
    """A line of the table."""
    own = results["policies"][name]
    won = next(one for one in results["comparisons"] if one["policy"] == name)
    cells = [
        name,
        f"{100 * won['win_rate']:.1f}% ({100 * won['low']:.1f} to {100 * won['high']:.1f})",
        f"{own['utility_mean']:.3f}",
        f"{metrics['reward']:.2f}",
        f"{own['kl_to_sft']:.1f}",
        f"{own['words_mean']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run of the embedded domain")
    parser.add_argument("--output", type=Path, required=True, help="where the policies and the comparison go")
    parser.add_argument("--responses", type=int, default=2, help="to each validation prompt")
    parser.add_argument("--only", nargs="*", default=list(CHANGES), choices=list(CHANGES), help="some of the settings")
    arguments = parser.parse_args()
    reuse_freed_memory()
    recipe = read_recipe(ROOT / "domains/support/recipe.yaml", [])
    domain = Domain(recipe, Run(arguments.run, create=False), notify=print)
    entry = next(section for section in recipe.align if section.method == "ppo")
    policies, metrics = {}, {}
    for name in arguments.only:
        folder = arguments.output / name.replace(" ", "-")
        section = entry.model_copy(update=CENTRE | CHANGES[name])
        metrics[name] = train(domain, section, folder, recipe.seed)
        policies[name] = folder / "policy"
        print(f"{name}: {metrics[name]['reward']:.2f}", flush=True)
    results = judge(domain, policies, arguments.output / "compare", arguments.responses)
    print("\n| setting | wins over SFT by utility | utility | held-out reward | KL to SFT, nats | words |")
    print("|---|---|---|---|---|---|")
    for name in policies:
        print(row(name, results, metrics[name]))


if __name__ == "__main__":
    main()
