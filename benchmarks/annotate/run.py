"""Measure the annotation app: see README.md beside this file.

python -m benchmarks.annotate.run load
python -m benchmarks.annotate.run load --pace 5 --levels 64
"""

from __future__ import annotations

import argparse

from benchmarks.annotate.checks import faults
from benchmarks.annotate.levels import HEAD, fill, measure, sqlite_file
from benchmarks.annotate.server import Server
from plumbline.preferences.store import Store


def run_load(arguments: argparse.Namespace) -> None:
    """Rates and times at each number of annotators, then what is wrong in the store."""
    with sqlite_file() as place:
        store = Store.open(place)
        fill(store, arguments.items, responses=arguments.responses, overlap=arguments.overlap)
        outcomes = []
        with Server(place, log=arguments.log) as server:
            print(HEAD, flush=True)
            for annotators in arguments.levels:
                outcome, level = measure(server, annotators, arguments.seconds, arguments.pace, arguments.warm_up)
                outcomes.append(outcome)
                print(level.row(), flush=True)
                for what, number in (outcome.errors + outcome.refusals).items():
                    print(f"  {number} times: {what}")
        print(f"faults in the store: {faults(store, *outcomes) or 'none'}", flush=True)
        store.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the annotation app.")
    commands = parser.add_subparsers(required=True)
    load = commands.add_parser("load", help=run_load.__doc__)
    load.set_defaults(run=run_load)
    load.add_argument("--levels", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32, 64])
    load.add_argument("--seconds", type=float, default=20.0, help="of each level")
    load.add_argument("--warm-up", type=float, default=2.0, help="seconds before each level")
    load.add_argument("--pace", type=float, default=0.0, help="seconds from one submit to the next; 0: no pause")
    load.add_argument("--items", type=int, default=40_000)
    load.add_argument("--responses", type=int, default=2)
    load.add_argument("--overlap", type=int, default=1)
    load.add_argument("--log", help="file for the server's output")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
