"""Where OPA's own evaluation cases lie: inside the pinned module, in the Go toolchain's read-only module cache.

Nothing is copied from there. The module is the one whose hash stands in ``go.sum`` beside this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tools.opa.build import BUILD_DEADLINE_SECONDS, HERE, MODULE, go_toolchains

CASES = Path("v1", "test", "cases", "testdata", "v1")


def module_dir() -> Path:
    """The pinned module's folder, downloaded when it is not there yet; raises ``RuntimeError`` when no way led there."""
    environment = {**os.environ, "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()}
    for go in go_toolchains():
        try:
            told = subprocess.run(
                [str(go), "mod", "download", "-json", MODULE],
                cwd=HERE, env=environment, capture_output=True, timeout=BUILD_DEADLINE_SECONDS, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as failure:
            print(f"{go} did not give the module: {failure}", file=sys.stderr)
            continue
        return Path(json.loads(told.stdout)["Dir"])
    raise RuntimeError(f"{MODULE} of tools/opa/go.mod cannot be had: install any recent Go")


def cases_dir() -> Path:
    """The folder of the evaluation cases for Rego version 1."""
    return module_dir() / CASES
