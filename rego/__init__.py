"""The shipped Rego: library, starter bundle source, profile capabilities, and what was built from them.

Guarantees: the folder holds data only, and `root()` finds it wherever the package is installed. Reading, compiling and
signing these files is left to `bundles`.
"""

from __future__ import annotations

import pathlib

__all__ = ["root"]


def root() -> pathlib.Path:
    """Return the directory that holds `lib/`, `starter/`, `built/` and `capabilities.json`."""
    return pathlib.Path(__file__).resolve().parent
