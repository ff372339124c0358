"""A gate whose state directory is a small file system of its own, which a test can fill up and empty.

The file system is mounted in a user and mount namespace, which needs no privilege where the kernel lets users have them; it
goes when the process that holds the namespace ends, whatever ends the test.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import GateProcess, child_environment, read_config
from tests.soak.renaming import wait_until_ready

SIZE_BYTES = 32 << 20
LOW_WATER_BYTES = SIZE_BYTES // 20
PIECE_BYTES = 1 << 12
_HOLD = f'mount -t tmpfs -o size={SIZE_BYTES} tidegate "$1" && echo ready && exec cat'


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """The state directory of a starter directory, on a file system of `SIZE_BYTES`."""

    directory: Path
    holder: int

    @classmethod
    @contextmanager
    def mount(cls, directory: Path) -> Iterator[SmallDisk | None]:
        """Mount it until the end of the block; None where users may not have namespaces."""
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _HOLD, "sh", str(directory / "state")]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except FileNotFoundError:
            yield None
            return
        with process:  # leaving closes its input, which ends it
            ready = process.stdout is not None and process.stdout.readline() == "ready\n"
            yield cls(directory, process.pid) if ready else None

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run `tidegate` where the small disk is; what it prints goes to the gate's log."""
        inside = ["nsenter", "--target", str(self.holder), "--user", "--preserve-credentials", "--mount", "--"]
        with (self.directory / "gate.log").open("ab") as output:
            return subprocess.Popen(
                [
                    *inside,
                    sys.executable,
                    "-m",
                    "cli.main",
                    *arguments,
                    "--config",
                    str(self.directory / "tidegate.yaml"),
                ],
                env=child_environment(),
                stdout=output,
                stderr=output,
            )

    def spawn(self) -> GateProcess:
        """A running gate. Raises `StartFailed`."""
        process = self.popen("gateway", "run")
        url = f"http://{read_config(self.directory)['listen']['gate']}"
        gate = GateProcess(self.directory, url, process, self.directory / "gate.log")
        wait_until_ready(gate)
        return gate

    @property
    def state(self) -> Path:
        """The state directory as this process reaches it."""
        return Path(f"/proc/{self.holder}/root") / (self.directory / "state").relative_to("/")

    def fill(self, leave_bytes: int = 0) -> None:
        """Write a file until `leave_bytes` are free."""
        with (self.state / "filler").open("ab", buffering=0) as out:
            while self.free_bytes() > leave_bytes:
                try:
                    out.write(b"\0" * min(PIECE_BYTES * 64, max(PIECE_BYTES, self.free_bytes() - leave_bytes)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def free_bytes(self) -> int:
        """What is free now."""
        found = os.statvfs(self.state)
        return found.f_bavail * found.f_frsize

    def empty(self) -> None:
        """Remove the file again."""
        (self.state / "filler").unlink()

    def copy_state(self, to: Path) -> Path:
        """Copy the state of a gate that has ended to where everybody can read it; the copy's directory."""
        shutil.copytree(self.state, to / "state", ignore=shutil.ignore_patterns("filler", "modules"))
        return to
