"""Measure the annotation app: see README.md beside this file.

python -m benchmarks.annotate.run load
python -m benchmarks.annotate.run load --pace 5 --levels 64
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.annotate import kill, outages, scale
from benchmarks.annotate.checks import faults
from benchmarks.annotate.compare import compare
from benchmarks.annotate.levels import HEAD, fill, measure, sqlite_file
from benchmarks.annotate.server import Server
from plumbline.preferences.store import Store
from tests.postgres import control, new_database, postgres_server


def run_load(arguments: argparse.Namespace) -> None:
    """Rates and times at each number of annotators, then what is wrong in the store."""
    with postgres_database() if arguments.postgres else sqlite_file() as place:
        store = Store.open(place)
        fill(store, arguments.items, responses=arguments.responses, overlap=arguments.overlap)
        outcomes = []
        with Server(place, log=arguments.log, workers=arguments.workers) as server:
            print(HEAD, flush=True)
            for annotators in arguments.levels * arguments.repeats:
                outcome, level = measure(server, annotators, arguments.seconds, arguments.pace)
                outcomes.append(outcome)
                print(level.row(), flush=True)
                for what, number in (outcome.errors + outcome.refusals).items():
                    print(f"  {number} times: {what}")
        print(f"faults in the store: {faults(store, *outcomes) or 'none'}", flush=True)
        store.close()


@contextlib.contextmanager
def postgres_database() -> Iterator[str]:
    """A database of a PostgreSQL server of our own, which waits for the disk as in earnest."""
    with postgres_server(fsync=True) as folder:
        yield new_database(folder)


def run_kill(arguments: argparse.Namespace) -> None:
    """SIGKILL of the server while annotators submit."""
    with sqlite_file() as place:
        store = Store.open(place)
        fill(store, arguments.items, overlap=2)
        print(kill.HEAD, flush=True)
        with Server(place, log=arguments.log) as server:
            wrong = kill.kill_rounds(
                server, store, arguments.annotators, arguments.rounds, lambda this: print(this.row(), flush=True)
            )
        before, after = kill.leases_come_back(store)
        print(f"rounds with faults: {wrong}; open leases at the end {before}, when their time is over {after}")
        store.close()


def run_outages(arguments: argparse.Namespace) -> None:
    """Disk full, store read-only, PostgreSQL stopped and started during a load."""
    print(outages.HEAD, flush=True)
    print(outages.disk_full().row(), flush=True)
    print(outages.read_only().row(), flush=True)
    with postgres_server(fsync=True) as folder:
        stop = partial(control, folder, "stop", "--mode=fast")
        print(outages.restarted(new_database(folder), stop, partial(control, folder, "start")).row(), flush=True)


def run_label_studio(arguments: argparse.Namespace) -> None:
    """Label Studio and plumbline under the same load."""
    compare(arguments.levels, arguments.seconds, arguments.items)


def run_scale(arguments: argparse.Namespace) -> None:
    """Next item, quality page and all exports on 100,000 items and 1,000,000 judgements."""
    scale.run()


ALL = (
    "scale",
    "load --seconds 12 --repeats 2",
    "load --seconds 30 --pace 5 --levels 64",
    "load --seconds 12 --postgres --workers 2",
    "load --seconds 30 --postgres --workers 2 --pace 5 --levels 64",
    "load --seconds 12 --responses 4 --overlap 3 --levels 8,64",
    "kill",
    "outages",
    "label-studio",
)


def run_all(arguments: argparse.Namespace) -> None:
    """Every measurement of docs/annotate-load.md, one after the other (25 minutes), into one file."""
    for command in ALL:
        with arguments.out.open("a") as out:
            out.write(f"\n## {command} ({time.strftime('%H:%M:%S')}, load average {os.getloadavg()[0]:.1f})\n\n")
            out.flush()
            subprocess.run([sys.executable, "-m", "benchmarks.annotate.run", *command.split()], stdout=out, check=False)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the annotation app.")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("scale", help=run_scale.__doc__).set_defaults(run=run_scale)
    compared = commands.add_parser("label-studio", help=run_label_studio.__doc__)
    compared.set_defaults(run=run_label_studio)
    compared.add_argument("--levels", type=_numbers, default=[1, 8, 32, 64])
    compared.add_argument("--seconds", type=float, default=15.0, help="of plumbline at each level; the other 3 times")
    compared.add_argument("--items", type=int, default=20_000)
    load = commands.add_parser("load", help=run_load.__doc__)
    load.set_defaults(run=run_load)
    load.add_argument("--levels", type=_numbers, default=[1, 8, 32, 64])
    load.add_argument("--seconds", type=float, default=20.0, help="of each level")
    load.add_argument("--repeats", type=int, default=1, help="of all levels")
    load.add_argument("--postgres", action="store_true", help="on a PostgreSQL server of its own")
    load.add_argument("--workers", type=int, default=1, help="server processes (with --postgres)")
    load.add_argument("--pace", type=float, default=0.0, help="seconds from one submit to the next; 0: no pause")
    load.add_argument("--items", type=int, default=40_000)
    load.add_argument("--responses", type=int, default=2)
    load.add_argument("--overlap", type=int, default=1)
    load.add_argument("--log", help="file for the server's output")
    killed = commands.add_parser("kill", help=run_kill.__doc__)
    killed.set_defaults(run=run_kill)
    killed.add_argument("--annotators", type=int, default=32)
    killed.add_argument("--rounds", type=int, default=20)
    killed.add_argument("--items", type=int, default=20_000)
    killed.add_argument("--log", help="file for the server's output")
    commands.add_parser("outages", help=run_outages.__doc__).set_defaults(run=run_outages)
    everything = commands.add_parser("all", help=run_all.__doc__)
    everything.set_defaults(run=run_all)
    everything.add_argument("--out", type=Path, required=True, help="file that the tables are added to")
    arguments = parser.parse_args()
    arguments.run(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
