"""Run the quick start: ``python -m examples.quickstart --dir DIR [--once]``.

Makes a starter directory when there is none, starts **stand-ins** of the services (no real one is touched) and the gate,
sends the triage scenario through it, and tells what happened in plain words. Without ``--once`` the gate is left running
until Ctrl-C or SIGTERM, which end everything that was started. Exit 0 when everything went as told, 1 when not, 3 when
something could not start.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from examples.quickstart.processes import Processes, StartFailed
from examples.quickstart.scenario import Scenario, WentOtherwise

EXIT_OTHERWISE = 1
EXIT_UNAVAILABLE = 3


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.quickstart", description="Tidegate's quick start.")
    parser.add_argument("--dir", type=Path, default=Path("run"), help="the starter directory")
    parser.add_argument(
        "--once", action="store_true", help="end after the scenario instead of leaving the gate running"
    )
    parser.add_argument("--free-ports", action="store_true", help="listen on ports the system gives out")
    return parser.parse_args(given)


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(given: Sequence[str] | None = None) -> int:
    """Run it; the exit code says how it went."""
    arguments = _arguments(given)
    signal.signal(signal.SIGTERM, _end)
    processes = Processes(arguments.dir, free_ports=arguments.free_ports)
    try:
        processes.prepare()
        processes.start()
        scenario = Scenario(processes)
        processes.await_ready()
        scenario.play()
        if not arguments.once:
            print(f"\nThe gate goes on running at {processes.gate_url}. Ctrl-C ends it.", flush=True)
            processes.wait()
    except StartFailed as error:
        print(f"\nIt could not start: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except WentOtherwise as error:
        print(f"\nSomething went otherwise than told: {error}", file=sys.stderr)
        return EXIT_OTHERWISE
    except KeyboardInterrupt:
        print("\nEnding.")
    finally:
        processes.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
