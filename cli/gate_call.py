"""Run one request against a gate and end the command with the right exit code when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cli.gate_client import GateMisused, GateRefused, GateUnreachable
from cli.output import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, fail

Result = TypeVar("Result")


def at_gate(ask: Callable[[], Result], *, as_json: bool) -> Result:
    """The result of ``ask``; exit 1 when the gate refused, 2 when it cannot be asked so, 3 when it is unavailable."""
    try:
        return ask()
    except GateUnreachable as error:
        fail("gate_unreachable", str(error), status=EXIT_UNAVAILABLE, as_json=as_json)
    except GateMisused as error:
        fail(error.code, str(error), status=EXIT_USAGE, as_json=as_json)
    except GateRefused as error:
        status = EXIT_UNAVAILABLE if error.status == 503 else EXIT_REFUSED
        detail = str(error)
        for member, name in (("reasons", "code"), ("errors", "pointer")):
            listed = error.problem.get(member)
            if isinstance(listed, list) and listed:
                said = (f"{one.get(name)}: {one.get('message')}" for one in listed if isinstance(one, dict))
                detail += " — " + "; ".join(said)
        fail(error.code, detail, status=status, as_json=as_json)
