"""`python -m tests.sim`: play histories by their seeds, and tell what became of them."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from .history import Result, play

STORY_LINES = 60


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one history and tell its story")
    parser.add_argument("--seeds", type=int, default=200, help="play so many histories (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed of --seeds (default 0)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: CPUs)")
    parser.add_argument("--verbose", action="store_true", help="a line for every seed; with --seed, tell as it happens")
    args = parser.parse_args(arguments)
    if args.seed is not None:
        return replay(args.seed, args.verbose)
    return many(range(args.first, args.first + args.seeds), args.jobs, args.verbose)


def replay(seed: int, aloud: bool) -> int:
    result = play(seed, aloud=aloud, told=not aloud)
    if result.story and not aloud:
        print(result.story)
    print(summary(result))
    return 1 if result.broken else 0


def summary(result: Result) -> str:
    end = f"BROKEN: {result.broken}" if result.broken else "all promises kept"
    return f"seed {result.seed}: {end} ({result.seconds:.2f} s, {result.digest[:16]})"


def many(seeds: range, jobs: int, verbose: bool) -> int:
    began, done, broken = time.monotonic(), 0, []
    with ProcessPoolExecutor(max(1, jobs), get_context("fork"), gc.freeze) as pool:  # imported once, and stays
        for future in as_completed([pool.submit(play, seed) for seed in seeds]):
            result = future.result()
            done += 1
            if result.broken:
                broken.append(result)
                print(f"{summary(result)}\n  replay: make sim SEED={result.seed}", flush=True)
            elif verbose:
                print(summary(result), flush=True)
            if done % 50 == 0 and done < len(seeds):
                print(f"{done} of {len(seeds)} histories, {len(broken)} broken", flush=True)
    for result in sorted(broken, key=lambda r: r.seed)[:1]:
        print(f"\nThe end of the story of seed {result.seed}:")
        print("\n".join(result.story.splitlines()[-STORY_LINES:]))
    kept = len(seeds) - len(broken)
    print(f"{kept} of {len(seeds)} histories kept all promises; {time.monotonic() - began:.0f} s")
    if broken:
        print("broken seeds: " + " ".join(str(r.seed) for r in sorted(broken, key=lambda r: r.seed)))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
