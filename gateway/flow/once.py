"""Once: one intent per idempotency key, the first answer again for a repeat (security rule 14).

Guarantees: a key means one request of one subject, for one person and in one environment, on one instance; another request
under it is refused; a stored answer is given only for a call that was dispatched and ended. Leaves deciding the repeat to
`gateway.flow.call`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from bundles.canonical import canonical_json
from gateway.edge.problem import refusal
from gateway.flow.commands import AppendRecord, LoadAnswer, LookUpClaim
from gateway.flow.describe import Recorder
from gateway.flow.events import AnswerLoaded, ClaimRead, Flow, expect
from gateway.flow.values import Finished, GovernedCall, Trace
from gateway.store.port import ClaimKey, StoreEffect, idempotency_scope

KEY_KEEP_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class KeyScope:
    """An idempotency key's scope, the digest of the request under it, and how long it is remembered."""

    scope: str
    request_digest: str
    keep_seconds: int


def is_once(call: GovernedCall) -> bool:
    """Whether a call has a key: the client's own counts where something changes or the manifest asks for it."""
    return bool(call.action.dedupe_seconds) or (call.idempotency_key is not None and call.action.mode == "write")


def key_scope(call: GovernedCall) -> KeyScope:
    """The key of a call that `is_once` and whose body is whole: the client's, else one made from its arguments."""
    action, subject = call.action, call.subject
    if call.idempotency_key is not None:
        key, keep = "key\0" + call.idempotency_key, KEY_KEEP_SECONDS
    else:
        effect = hashlib.sha256(action.name.encode() + b"\0" + canonical_json(dict(call.args))).hexdigest()
        key, keep = "effect\0" + effect, action.dedupe_seconds
    scope = idempotency_scope(call.log, subject.standing, call.plan.name, key)
    return KeyScope(scope, request_digest(call), keep)


def request_digest(call: GovernedCall) -> str:
    """What makes two requests under one key the same."""
    parts = [call.action.name, call.outbound.method, call.outbound.path, call.outbound.raw_query]
    digest = hashlib.sha256("\0".join(parts).encode())
    digest.update(canonical_json(dict(call.args)))
    digest.update(hashlib.sha256(call.outbound.body or b"").digest())
    return digest.hexdigest()


def look_up(call: GovernedCall, scope: KeyScope) -> Flow[str | None]:
    """The earlier call whose answer is to be given again, or None for a key that is free."""
    claim = expect((yield LookUpClaim(call.log, scope.scope)), ClaimRead).claim
    if claim is None or claim.expires <= int(call.received_unix * 1000):
        return None
    if claim.request_digest != scope.request_digest:
        raise refusal("idempotency_mismatch", "the key was used with another request")
    if claim.state == "claimed":
        raise refusal("still_running", "a call with this key has not ended")
    if claim.state == "unknown":
        raise refusal("outcome_unknown", "nobody knows how the call with this key ended", earlier=claim.call)
    return claim.call


def replay(call: GovernedCall, trace: Trace, recorder: Recorder, earlier: str) -> Flow[Finished]:
    """Give the stored answer of `earlier` again; recorded as a call that was not sent."""
    stored = expect((yield LoadAnswer(call.log, earlier)), AnswerLoaded).answer
    if stored is None:
        raise refusal("stale_state", "the call with this key has ended and its answer is not kept", earlier=earlier)
    draft = recorder.draft("call", status=stored.status, response=stored.body, extra={"replay_of": earlier})
    yield AppendRecord(draft)
    trace.settled = True
    return Finished(stored.status, stored.headers, stored.body, effect=trace.effect)


def key_effects(call: GovernedCall, scope: KeyScope | None, released_unix: float) -> tuple[StoreEffect, ...]:
    """The claim that goes with the intent; it lasts from when the call came, or went on after it was held."""
    if scope is None:
        return ()
    expires = int((max(call.received_unix, released_unix) + scope.keep_seconds) * 1000)
    return (ClaimKey(call.log, scope.scope, scope.request_digest, call.call_id, expires),)
