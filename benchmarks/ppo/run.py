"""plumbline's PPOTrainer against TRL 1.12.0's: speed and memory, and reward against episodes.

    python -m benchmarks.ppo.run speed --workload fixed
    python -m benchmarks.ppo.run speed --workload real
    python -m benchmarks.ppo.run learn

Each run is a process of its own. README.md beside this file tells what is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks.ppo.flops import peak_of
from benchmarks.ppo.table import RunRecord, learning_table, speed_table

ROOT = Path(__file__).parents[2]
CACHE = Path(__file__).parent / ".cache"
TRL_PACKAGES = ("torch==2.13.0", "trl==1.12.0", "transformers", "datasets", "accelerate", "peft")
SIDES = ("trl", "plumbline")
WORKLOADS = {"fixed": {"response_length": 48, "rollouts": 4}, "real": {"response_length": 128, "rollouts": 2}}
LEARN = {"size": "1M", "batch_size": 32, "response_length": 16, "learning_rate": 1e-3, "kl_coef": 0.01}


def trl_python() -> Path:
    """The interpreter of the environment that has TRL 1.12.0; the first call makes it, of the versions pinned here."""
    folder = CACHE / "trl"
    python, ready = folder / "bin/python", folder / ".ready"
    if not ready.exists():
        print(f"making an environment with {' '.join(TRL_PACKAGES)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("trl==")]
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(pins))
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", constraints, *TRL_PACKAGES], check=True)
        ready.touch()
    return python


def start(module: str, task: dict, threads: int, *arguments: Path, python: str | Path = sys.executable) -> Run:
    """Start a module of the benchmark in a process of its own; what it prints goes to a log."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [str(part) for part in (python, "-m", f"benchmarks.ppo.{module}", json.dumps(task), *arguments)]
    return Run(command, environment, Path(task["folder"]) / f"{module}.log")


class Run:
    """A process that was started."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            SystemExit: it failed; the message names the log.
        """
        if self.process.wait() != 0:
            tail = "\n".join(self.log.read_text().splitlines()[-15:])
            raise SystemExit(f"{tail}\n\na run failed; all it said: {self.log}")


class Benchmark:
    """The runs of one command.

    Args:
        task: what both sides get, as the fields of `workload.Task`.
        ours: what plumbline's side gets besides.
        threads: of each process.
    """

    def __init__(self, task: dict, ours: dict, threads: int) -> None:
        self.folder = CACHE / "runs" / task["workload"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.task, self.ours, self.threads = task | {"folder": str(self.folder)}, ours, threads
        self.python = {"trl": trl_python(), "plumbline": sys.executable}
        start("workload", self.task, threads).wait()

    def start(self, side: str, **settings: int) -> tuple[Run, Path]:
        """Start a run of one side: the process and where its record will be."""
        task = self.task | settings | (self.ours if side == "plumbline" else {})
        record = self.folder / f"{side}.json"
        return start(f"{side}_side", task, self.threads, record, python=self.python[side]), record

    def one_after_the_other(self, number: int) -> tuple[RunRecord, RunRecord]:
        """A run of each side, alone on the machine; each pair has its seed, and who goes first changes."""
        records = {}
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            run, record = self.start(side, seed=number + 1)
            run.wait()
            records[side] = json.loads(record.read_text())
        return records["trl"], records["plumbline"]

    def side_by_side(self, seed: int) -> tuple[RunRecord, RunRecord]:
        """A run of each side with one seed, at the same time: nothing is timed."""
        runs = [self.start(side, seed=seed) for side in SIDES]
        for run, _ in runs:
            run.wait()
        trl, ours = (json.loads(record.read_text()) for _, record in runs)
        return trl, ours


def machine() -> str:
    """What the processor is called."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def listed(settings: dict) -> str:
    """Settings in a line; those that are off are left out."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value and name != "data")


def speed(arguments: argparse.Namespace) -> None:
    """Compare speed and memory."""
    names = ("workload", "data", "size", "batch_size", "lora")
    task = {name: getattr(arguments, name) for name in names}
    task |= {name: getattr(arguments, name) or value for name, value in WORKLOADS[arguments.workload].items()}
    ours = {name: getattr(arguments, name) for name in ("bf16", "micro_batch_tokens", "reuse_memory")}
    ours["ours"] = {name: json.loads(value) for name, _, value in (one.partition("=") for one in arguments.set)}
    benchmark = Benchmark(task, ours, arguments.threads)
    pairs = []
    for number in range(arguments.pairs):
        pairs.append(benchmark.one_after_the_other(number))
        trl, mine = (sum(record["seconds"]) for record in pairs[-1])
        print(f"pair {number + 1}: TRL {trl:.1f} s, plumbline {mine:.1f} s of training", flush=True)
    device = pairs[0][0]["device"].replace("cpu", f"{machine()}, {arguments.threads} threads")
    print(f"\n{device}; {listed(task | ours)}\n")
    peak = arguments.peak_tflops or peak_of(pairs[0][0]["device"])
    print(speed_table(pairs, arguments.batch_size, peak))


def learn(arguments: argparse.Namespace) -> None:
    """Compare the rewards that both sides reach."""
    task = LEARN | {"workload": "learn", "data": "", "rollouts": arguments.rollouts}
    benchmark = Benchmark(task, {}, max(1, arguments.threads // 2))
    runs = []
    for seed in range(1, arguments.seeds + 1):
        runs.append(benchmark.side_by_side(seed))
        trl, ours = (record["scores"][-1] for record in runs[-1])
        print(f"seed {seed}: last reward TRL {trl:.3f}, plumbline {ours:.3f}", flush=True)
    print(f"\nreward, mean over {arguments.seeds} seeds (lowest to highest); {listed(task)}\n")
    print(learning_table(runs, LEARN["batch_size"], points=8))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all processors")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("speed", help="episodes/s, tokens/s, phases, peak memory")
    command.set_defaults(run=speed)
    command.add_argument("--workload", choices=tuple(WORKLOADS), default="fixed")
    command.add_argument("--pairs", type=int, default=3, help="runs of each side")
    command.add_argument("--rollouts", type=int, help="of each run, the first not counted; default: fixed 4, real 2")
    command.add_argument("--size", default="5M", help="1M, 5M, 25M, 100M, 0.5B or 1.5B parameters")
    command.add_argument("--batch-size", type=int, default=32, help="episodes of a rollout and of an optimizer step")
    command.add_argument("--response-length", type=int, help="longest response; default: fixed 48, real 128")
    command.add_argument("--lora", action="store_true", help="both sides: adapters of rank 16")
    command.add_argument("--bf16", action="store_true", help="plumbline: bfloat16 autocast; TRL's setting does nothing")
    command.add_argument("--micro-batch-tokens", type=int, default=4096, help="plumbline: tokens of a forward pass")
    command.add_argument(
        "--reuse-memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="plumbline: the C library keeps freed memory (PPOConfig.reuse_memory)",
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=JSON", help="plumbline: a setting of its PPOConfig"
    )
    command.add_argument("--peak-tflops", type=float, help="of the processor, for its utilisation; known for some GPUs")
    command.add_argument("--data", default=str(ROOT.parent / "shared/data"), help="folder with the shared data")
    command = commands.add_parser("learn", help="reward against episodes")
    command.set_defaults(run=learn)
    command.add_argument("--seeds", type=int, default=5)
    command.add_argument("--rollouts", type=int, default=96, help="of 32 episodes")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
