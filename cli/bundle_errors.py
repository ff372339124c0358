"""How the commands about bundles end when something is wrong: the error's own code, and an exit status of `cli.output`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

from bundles.errors import BundleError, BundleMisuse, BundleUnavailable
from cli.output import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, fail
from pdp.errors import PdpError

T = TypeVar("T")


def guarded(work: Callable[[], T], as_json: bool) -> T:
    """Run ``work``; an error of ours ends the command."""
    try:
        return work()
    except BundleError as failure:
        _fail(failure, as_json)
    except PdpError as failure:
        fail(failure.code, str(failure), status=EXIT_REFUSED, as_json=as_json)


def _fail(failure: BundleError, as_json: bool) -> NoReturn:
    status = EXIT_REFUSED
    if isinstance(failure, BundleUnavailable):
        status = EXIT_UNAVAILABLE
    elif isinstance(failure, BundleMisuse):
        status = EXIT_USAGE
    fail(failure.code, failure.detail, status=status, as_json=as_json)
