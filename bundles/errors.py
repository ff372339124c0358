"""The errors of this package, split by what a caller does about them.

Guarantees: every error carries a stable ``code`` (metric label, log field) and a ``detail`` in words.
"""

from __future__ import annotations


class BundleError(Exception):
    """Base of all errors of ``bundles``: ``code`` is stable, ``detail`` is for people."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


class BundleRefused(BundleError):
    """What was handed in is not acceptable; asking again with the same bytes gives the same answer."""


class BundleUnavailable(BundleError):
    """Something outside is missing (a tool, a disk); the same request may succeed later."""


class BundleMisuse(BundleError):
    """The caller's own arguments or configuration are wrong."""
