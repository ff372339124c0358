"""Put the pinned Regal at ``.tools/regal``: built from the module whose hashes stand in ``go.sum`` beside this file.

Regal pins an OPA of its own, older than ours, so it has a module of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.opa.build import ASK_DEADLINE_SECONDS, TOOLS, Built, build, go_toolchains

HERE = Path(__file__).resolve().parent
MODULE = "github.com/open-policy-agent/regal"
TARGET = TOOLS / "regal"
PROGRAM = Built(HERE, MODULE, TARGET)


def pinned_version() -> str:
    """The Regal version of ``go.mod``."""
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(MODULE)} v(\S+)", (HERE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("tools/regal/go.mod pins no Regal")
    return found.group(1)


def works() -> bool:
    """Whether the program is there, newer than what pins it, and runs."""
    if not TARGET.is_file() or TARGET.stat().st_mtime < (HERE / "go.sum").stat().st_mtime:
        return False
    try:
        subprocess.run([str(TARGET), "version"], capture_output=True, timeout=ASK_DEADLINE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def main() -> int:
    """0 when ``.tools/regal`` works, 3 when no way led there."""
    if works():
        return 0
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    for go in go_toolchains():
        print(f"Building Regal {pinned_version()} with {go} (once, about a minute)", flush=True)
        if build(go, PROGRAM) and works():
            return 0
    print("No Regal: install any recent Go and run this again.", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
