"""What the main operations of /v1 answer, as JSON Schema (draft 2020-12) for the description of the interface.

Guarantees: each member that is always there is required, and no answer has a member that its schema does not name; a test holds real
answers against them. Leaves which operation answers which schema to `openapi`.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from gateway.approvals.model import ApprovalState, StepState
from gateway.store.port import CallState

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time", "description": "RFC 3339 in UTC"}
_WHOLE: Final[Schema] = {"type": "integer"}
_ANY_OBJECT: Final[Schema] = {"type": "object"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}


def _nullable(schema: Schema) -> Schema:
    """`schema` or null, for schemas of one type."""
    return {**schema, "type": [schema["type"], "null"]}


def _object(properties: dict[str, Schema], *optional: str) -> Schema:
    return {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": properties,
    }


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _page_of(name: str, **more: Schema) -> Schema:
    """The form of lists: `items`, and `next` for the page after."""
    next_page = {**_nullable(_TEXT), "description": "the cursor of the next page; null at the end"}
    return _object({"items": _list_of(reference(name)), "next": next_page, **more})


def reference(name: str) -> Schema:
    """A reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_REASON: Final = _object({"code": _TEXT, "rule": _nullable(_TEXT), "message": _TEXT}, "rule")
_HELD_BY: Final = _object(
    {"id": _TEXT, "url": _TEXT, "decide_by": _TIME, "action_digest": _TEXT}, "decide_by", "action_digest"
)
_VOTE: Final = _object({"voter": _TEXT, "decision": {"enum": ["approve", "deny"]}, "reason": _TEXT, "at": _TIME})
_STEP: Final = _object(
    {
        "id": _TEXT,
        "state": {"enum": [state.value for state in StepState]},
        "needs": _object({"roles": _list_of(_TEXT), "quorum": _WHOLE}),
        "votes": _list_of(_VOTE),
    }
)
_DECISION: Final = _object({"effect": _TEXT, "reasons": _list_of(_REASON), "obligations": _ANY_OBJECT})
_SHORT_BUNDLE: Final = _object({"revision": _TEXT, "digest": _TEXT, "sequence": _WHOLE})

SCHEMAS: Final[dict[str, Schema]] = {
    "Call": _object(
        {
            "id": _TEXT,
            "state": {"enum": [*get_args(CallState)]},
            "effect": _TEXT,
            "code": _nullable(_TEXT),
            "decision": _nullable(_TEXT),
            "approval": _nullable(_HELD_BY),
            "instance": _TEXT,
            "action": _TEXT,
            "created": _TIME,
            "status": {**_nullable(_WHOLE), "description": "what the service answered"},
            "response": {"description": "the service's answer: JSON where it is JSON, else text; null without one"},
            "reasons": _nullable(_list_of(_REASON)),
        },
        "reasons",
    ),
    "Approval": _object(
        {
            "id": _TEXT,
            "state": {"enum": [state.value for state in ApprovalState]},
            "action_digest": _TEXT,
            "call": _TEXT,
            "tenant": _TEXT,
            "workspace": _TEXT,
            "instance": _TEXT,
            "action": _TEXT,
            "resource": _ANY_OBJECT,
            "arguments": _ANY_OBJECT,
            "subject": _ANY_OBJECT,
            "reasons": _list_of(_REASON),
            "created": _TIME,
            "decide_by": _TIME,
            "use_by": _nullable(_TIME),
            "on_approval": _TEXT,
            "chain": _object({"name": _TEXT, "steps": _list_of(_STEP)}),
            "kind": {"const": "access_request"},
        },
        "kind",
    ),
    "Approvals": _page_of("Approval"),
    "Switch": _object(
        {
            "scope": _TEXT,
            "set": _BOOLEAN,
            "reason": _TEXT,
            "set_by": _TEXT,
            "since": _TIME,
            "warning": {**_nullable(_TEXT), "description": "on setting: the bundle in force has no such name"},
        },
        "warning",
    ),
    "Switches": _page_of("Switch"),
    "SwitchCleared": _object({"scope": _TEXT, "set": {"const": False}}),
    "Simulation": _object(
        {
            "decision": _DECISION,
            "rules": _nullable(_list_of(_object({"rule": _TEXT, "code": _TEXT}))),
            "engine": _TEXT,
            "bundle": _SHORT_BUNDLE,
            "missing_facts": _nullable(_list_of(_TEXT)),
            "input_digest": _TEXT,
            "recorded": _ANY_OBJECT,
        },
        "recorded",
    ),
    "Enforcement": _object(
        {
            "bundles": _list_of(
                {"type": "object", "required": ["name", "revision", "sequence", "digest", "freshness"]}
            ),
            "engines": _list_of(_TEXT),
            "instances": _list_of(_object({"name": _TEXT, "connector": _TEXT, "version": _TEXT, "actions": _WHOLE})),
            "switches": _list_of(_object({"scope": _TEXT, "reason": _TEXT})),
            "cross_check": _nullable(_ANY_OBJECT),
            "uncovered_instances": _list_of(_TEXT),
            "not_enforced_yet": _list_of(_TEXT),
        }
    ),
    "Difference": {
        "type": "object",
        "required": ["call", "at", "kind"],
        "properties": {"call": _TEXT, "at": _TIME, "kind": _TEXT},
    },
    "Shadow": _page_of(
        "Difference",
        counts={"type": "object", "additionalProperties": _WHOLE},
        shadow=_nullable(_ANY_OBJECT),
        error=_nullable(_object({"code": _TEXT, "detail": _nullable(_TEXT)})),
        offered=_WHOLE,
        dropped=_WHOLE,
        cross_check=_nullable(_ANY_OBJECT),
    ),
}
"""By name; every one but `Difference` and the parts of `Enforcement` names all the members there are."""
