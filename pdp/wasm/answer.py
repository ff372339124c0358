"""What the embedded engine's answer must look like: one result, nothing else.

Guarantees that bytes leave here only when the engine gave exactly one result; an undefined decision is no answer.
Whether the result is a decision is left to ``pdp.decision_document``.
"""

from __future__ import annotations

import orjson

from pdp.errors import EngineFailed

_BEFORE = b'[{"result":'
_AFTER = b"}]"
_MEMBER = b'"result":'


def single_result(raw: bytes) -> bytes:
    """The one result's JSON out of ``[{"result": …}]``; raises ``EngineFailed`` for none, several or anything else.

    Inside a JSON string a quotation mark is escaped, so the member's name with its quotes and colon, seen once, is the
    one result's; only when a decision has such a member itself is the whole answer parsed to be sure.
    """
    if raw.startswith(_BEFORE) and raw.endswith(_AFTER) and raw.count(_MEMBER) == 1:
        return raw[len(_BEFORE) : -len(_AFTER)]
    try:
        results = orjson.loads(raw)
    except orjson.JSONDecodeError as refused:
        raise EngineFailed("the engine's answer is not JSON") from refused
    if not isinstance(results, list):
        raise EngineFailed("the engine's answer is not a list of results")
    if len(results) != 1:
        raise EngineFailed("the decision is undefined" if not results else f"the engine gave {len(results)} results")
    if not isinstance(results[0], dict) or results[0].keys() != {"result"}:
        raise EngineFailed("the engine's result has another shape")
    return orjson.dumps(results[0]["result"])
