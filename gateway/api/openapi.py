"""The description of /v1 and /access/v1 in OpenAPI 3.1, from one table of its operations."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gateway.api.openapi_schemas import SCHEMAS, reference
from gateway.approvals.model import ApprovalState
from gateway.edge.problem import CODES

_TENANT_SWITCH = "/v1/switches/tenant/{tenant}"
_SWITCH = "/v1/switches/tenant/{tenant}/{kind}/{name}"
_SHORT: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 512}
_SWITCH_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["reason"],
    "additionalProperties": False,
    "properties": {"reason": {"type": "string"}},
}


def _parameter(name: str, place: str, schema: dict[str, Any], words: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": words}


_OPERATIONS: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("post", "/v1/calls", "Make a governed call", (200, 202)),
    ("get", "/v1/calls/{id}", "Status of a call", (200,)),
    ("get", "/v1/calls/{id}/response", "Stored answer of a call", (200,)),
    ("get", "/v1/approvals", "What waits for a person", (200,)),
    ("get", "/v1/approvals/{id}", "One approval", (200,)),
    ("post", "/v1/approvals/{id}/votes", "Vote", (200,)),
    ("post", "/v1/approvals/{id}/withdraw", "Withdraw one's own held call", (200,)),
    ("get", "/v1/enforcement", "What is enforced right now", (200,)),
    ("post", "/v1/simulate", "Decide without doing", (200,)),
    ("post", "/v1/replay", "Decide recorded calls again with another bundle", (200,)),
    ("get", "/v1/shadow", "What the shadow bundle decides differently", (200,)),
    ("get", "/v1/switches", "Switches that are set", (200,)),
    ("get", "/v1/switches/tenant/{tenant}", "The switch of the whole tenant", (200,)),
    ("put", "/v1/switches/tenant/{tenant}", "Stop every call of the tenant", (200,)),
    ("delete", "/v1/switches/tenant/{tenant}", "Clear it", (200,)),
    ("get", "/v1/switches/tenant/{tenant}/{kind}/{name}", "One switch", (200,)),
    ("put", "/v1/switches/tenant/{tenant}/{kind}/{name}", "Set a kill switch", (200,)),
    ("delete", "/v1/switches/tenant/{tenant}/{kind}/{name}", "Clear a kill switch", (200,)),
    ("post", "/v1/opa/logs", "Hand in an OPA's decision log, gzip or not", (204,)),
    ("post", "/v1/opa/logs/{partition}", "The same for a partition", (204,)),
    ("post", "/v1/opa/status", "Hand in an OPA's status", (204,)),
    ("post", "/v1/opa/status/{partition}", "The same for a partition", (204,)),
    ("post", "/access/v1/evaluation", "AuthZEN: one question, one decision", (200,)),
    ("post", "/access/v1/evaluations", "AuthZEN: several questions", (200,)),
    ("post", "/access/v1/requests", "AuthZEN: ask people for what was denied", (201, 202)),
    ("get", "/access/v1/requests/{id}", "AuthZEN: how an access request stands", (200,)),
    ("delete", "/access/v1/requests/{id}", "AuthZEN: cancel one's own access request", (200,)),
    ("post", "/access/v1/requests/{id}/cancel", "AuthZEN: the same", (200,)),
)
_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/calls"): {
        "type": "object",
        "required": ["instance", "action"],
        "additionalProperties": False,
        "properties": {
            "instance": {"type": "string"},
            "action": {"type": "string"},
            "arguments": {"type": "object"},
            "idempotency_key": {"type": "string", "maxLength": 255},
            "ticket": {"type": "string"},
            "run": {"type": "string"},
        },
    },
    ("post", "/v1/approvals/{id}/votes"): {
        "type": "object",
        "required": ["decision", "action_digest"],
        "additionalProperties": False,
        "properties": {
            "decision": {"enum": ["approve", "deny"]},
            "reason": {"type": "string", "maxLength": 2000},
            "action_digest": {"type": "string"},
        },
    },
    ("post", "/v1/simulate"): {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "input": {"type": "object", "description": "A whole input document; nothing else beside it."},
            "call": {"type": "string", "description": "A recorded call; nothing else beside it."},
            "instance": {"type": "string"},
            "action": {"type": "string"},
            "arguments": {"type": "object"},
            "subject": {"type": "object", "description": "Members that differ from the caller's own."},
            "ticket": {"type": "string"},
            "run": {"type": "string"},
        },
    },
    ("post", "/v1/replay"): {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "last": {"type": "integer", "minimum": 1, "maximum": 10000},
            "bundle": {"type": "string", "contentEncoding": "base64", "description": "Default: the shadow bundle."},
        },
    },
    ("post", "/access/v1/requests"): {
        "type": "object",
        "required": ["subject", "action", "resource", "denial"],
        "properties": {
            "subject": {"type": "object"},
            "action": {"type": "object"},
            "resource": {"type": "object"},
            "context": {
                "type": "object",
                "properties": {"business_justification": {"type": "string", "maxLength": 2000}},
            },
            "denial": {
                "type": "object",
                "required": ["binding_token", "expires_at"],
                "properties": {
                    "binding_token": {"type": "string"},
                    "expires_at": {"type": "string"},
                    "evaluation_id": {"type": "string"},
                },
            },
        },
    },
    ("put", _TENANT_SWITCH): _SWITCH_BODY,
    ("put", _SWITCH): _SWITCH_BODY,
}
_ANSWERS: dict[tuple[str, str], str] = {
    ("post", "/v1/calls"): "Call",
    ("get", "/v1/calls/{id}"): "Call",
    ("get", "/v1/approvals"): "Approvals",
    ("get", "/v1/approvals/{id}"): "Approval",
    ("post", "/v1/approvals/{id}/votes"): "Approval",
    ("post", "/v1/approvals/{id}/withdraw"): "Approval",
    ("get", "/v1/enforcement"): "Enforcement",
    ("post", "/v1/simulate"): "Simulation",
    ("get", "/v1/shadow"): "Shadow",
    ("get", "/v1/switches"): "Switches",
    ("get", _TENANT_SWITCH): "Switch",
    ("put", _TENANT_SWITCH): "Switch",
    ("delete", _TENANT_SWITCH): "SwitchCleared",
    ("get", _SWITCH): "Switch",
    ("put", _SWITCH): "Switch",
    ("delete", _SWITCH): "SwitchCleared",
}
"""The schema that an operation answers with; the others answer with what their own pages and standards say."""
_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "kind": {"schema": {"enum": ["connector", "action", "subject"]}},
    "name": {
        "schema": {"type": "string"},
        "description": "A subject's ID is one segment: percent-encode it whole, so that spiffe://acme/agent is"
        " spiffe%3A%2F%2Facme%2Fagent.",
    },
}
_PARAMETERS: dict[tuple[str, str], tuple[dict[str, Any], ...]] = {
    ("post", "/v1/calls"): (
        _parameter(
            "Prefer", "header", {"type": "string"}, "wait=N (seconds) or respond-async, for a call that is held"
        ),
        _parameter("Idempotency-Key", "header", {"type": "string", "maxLength": 255}, "unless the body has one"),
        _parameter("Tidegate-Reason", "header", _SHORT, "why, for the approver, as your own words"),
        _parameter("Tidegate-Ticket", "header", _SHORT, "shown to policy, unless the body has one"),
        _parameter("Tidegate-Run", "header", _SHORT, "shown to policy, unless the body has one"),
    ),
    ("get", "/v1/approvals"): (
        _parameter("state", "query", {"enum": [state.value for state in ApprovalState]}, "default: every state"),
        _parameter("cursor", "query", {"type": "string"}, "`next` of the page before"),
    ),
    ("get", "/v1/shadow"): (
        _parameter("kind", "query", {"enum": ["changed", "engine", "loosening", "tightening"]}, "default: every kind"),
        _parameter("cursor", "query", {"type": "string"}, "`next` of the page before"),
    ),
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"enum": sorted(CODES)},
        "detail": {"type": "string"},
        "call": {"type": "string"},
    },
}


@lru_cache(maxsize=1)
def description() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, statuses in _OPERATIONS:
        answered = _ANSWERS.get((method, path))
        done: dict[str, Any] = {"description": "Done"}
        if answered is not None:
            done["content"] = {"application/json": {"schema": reference(answered)}}
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {str(status): done for status in statuses},
        }
        operation["responses"]["default"] = {
            "description": "Refused",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, **_PATH_PARAMETERS.get(name, {"schema": {"type": "string"}})}
            for name in names
        ]
        operation["parameters"] += _PARAMETERS.get((method, path), ())
        body = _BODIES.get((method, path))
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tidegate", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, **SCHEMAS},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "security": [{"bearer": []}],
    }
