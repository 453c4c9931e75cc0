"""The command line of `scripts/gpu_check.sh`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from scripts.gpu_check.luggage import REPOSITORY, fetch_wheels, missing

STARTED = time.monotonic()
SECONDS = 172.0  # that a part may take, when the shell has not said how many are left

HELP = f"""What the benchmark does on a GPU, in three parts of at most 180 seconds each.

  scripts/gpu_check.sh agreement OUT   the CPU's likelihoods, bounds and samples, on the GPU
  scripts/gpu_check.sh speed OUT       a GPT and a U-Net: rate, share of the chip's peak, harness against a bare loop
  scripts/gpu_check.sh records OUT     the MNIST suite at `quick`, then at `standard` in what time is left
                                       (further arguments are settings, as in evaluation.sample_draws=2)

Each writes OUT/PART.md and OUT/PART.tar.gz while it runs: a part that is killed leaves what it has. With --rehearse a
part is small enough for a CPU. PYTHON names the interpreter.

Before, where there is git and a network:

  scripts/gpu_check.sh stamp           writes provenance.json: the commit and the hash of its code, for `records`
  scripts/gpu_check.sh expected        writes the figures of this CPU that `agreement` compares with
  scripts/gpu_check.sh wheels DIR      fetches what a machine with torch may lack, for Python 3.12
                                       (further arguments name large packages to bring: scipy, torchvision, ...)

To bring: the checkout, provenance.json, its folder wheels/, and MNIST's four .gz files in the folder MNIST/raw below
BENCHMARK_DATA, else below data/. {REPOSITORY.name}/docs/gpu.md says more.
"""


class Ended(BaseException):
    """The part was told to end."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("gpu_check.sh", description=HELP, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=("agreement", "speed", "records", "stamp", "expected", "wheels"))
    parser.add_argument("out", nargs="?", type=Path, help="where a part writes, or what it fetches")
    parser.add_argument("more", nargs="*", help="of records: settings; of wheels: packages")
    parser.add_argument("--rehearse", action="store_true", help="small enough for a CPU")
    parser.add_argument("--only", help="of agreement: these cases, as in vae@digits,gpt@synthetic_text")
    parser.add_argument("--jobs", type=int, help="of records: how many runs at once")
    given = parser.parse_intermixed_args(arguments)
    if given.verb in ("agreement", "speed", "records", "wheels") and given.out is None:
        parser.error(f"{given.verb} needs a folder")
    if given.verb == "wheels":
        return fetch_wheels(given.out, given.more)
    if lacking := missing():
        print(
            f"missing here: {', '.join(lacking)}\nbring them with: scripts/gpu_check.sh wheels wheels", file=sys.stderr
        )
        return 2
    from benchmark.spec import BadInput

    try:
        return _carry_out(given)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _carry_out(given: argparse.Namespace) -> int:
    only = given.only.split(",") if given.only else None
    if given.verb == "stamp":
        from benchmark.record import write_stamp

        print(write_stamp())
        return 0
    if given.verb == "expected":
        from scripts.gpu_check import agreement

        print(agreement.write_expected(only))
        return 0

    from scripts.gpu_check.results import Results

    deadline = STARTED + float(os.environ.get("GPU_CHECK_SECONDS", SECONDS))
    with Results(given.out, given.verb, deadline, given.rehearse) as results:
        signal.signal(signal.SIGTERM, _end)
        try:
            if given.verb == "agreement":
                from scripts.gpu_check import agreement

                agreement.check(results, only)
            elif given.verb == "speed":
                from scripts.gpu_check import speed

                speed.check(results)
            else:
                from scripts.gpu_check import records

                records.check(results, given.more, given.jobs)
        except Ended:
            results.end("it was told to end")
        return int(results.failed)


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended


if __name__ == "__main__":
    sys.exit(main())
