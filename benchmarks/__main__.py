"""Runs the measurements: `python -m benchmarks [proxy] [parts] [decision] [envoy] [swap] [--rounds N] [--seconds S]`.

`--data BYTES`, which may be repeated, asks one decision with that much data (`decision` only).
"""

from __future__ import annotations

import argparse

from benchmarks import decision, envoy, parts, proxy, swap

CASES = ("parts", "decision", "proxy", "envoy", "swap")


def main() -> None:
    """Parse the command line and run the cases in turn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds a side; swaps, for `swap`")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one round")
    parser.add_argument("--data", type=int, action="append", help="bytes of data for `decision`; 10,000 and 1,000,000")
    given = parser.parse_args()
    unknown = sorted(set(given.cases) - set(CASES))
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}")
    for case in given.cases or CASES:
        if case == "parts":
            parts.run(given.rounds)
        elif case == "decision":
            decision.run(given.rounds, given.data or decision.DATA_BYTES)
        elif case == "envoy":
            envoy.run(given.rounds, given.seconds)
        elif case == "swap":
            swap.run(given.rounds)
        else:
            proxy.run(given.rounds, given.seconds)


if __name__ == "__main__":
    main()
