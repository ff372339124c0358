"""Run one request against a gate and end the command with the right exit code when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

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
        detail = with_errors(str(error), error.problem.get("errors"))
        reasons = error.problem.get("reasons")
        if isinstance(reasons, list) and reasons:
            said = (f"{one.get('code')}: {one.get('message')}" for one in reasons if isinstance(one, dict))
            detail += " — " + "; ".join(said)
        if error.code == "identity_missing":
            detail += "; set TIDEGATE_TOKEN, or give --token-file FILE"
        fail(error.code, detail, status=status, as_json=as_json)


def with_errors(detail: str, errors: Any) -> str:
    """A refusal's sentence with the places that `errors` (JSON Pointer and message) name, none of it said twice."""
    listed = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    said = [
        ": ".join(filter(None, (str(each.get("pointer") or ""), str(each.get("message") or "")))) for each in listed
    ]
    repeated = {str(each.get("message")) for each in listed} | {""}
    return " — ".join(filter(None, ("" if said and detail in repeated else detail, "; ".join(filter(None, said)))))
