"""What binds an approval to one exact call.

Guarantees: two calls that differ in any member of `CallFields` have different digests; without the salt nobody can try
likely arguments against a digest that was shown. Leaves to the flow to gather the fields from what it is about to send.

**Source**: RFC 8785; RFC 2104. **Security**: security rule 3 (128-bit salt per approval).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Final

from bundles.canonical import JsonValue, canonical_json
from gateway.approvals.model import CallFields

DIGEST_VERSION: Final = 2
"""2: the issuer of the subject is bound as well."""


def action_digest(fields: CallFields, salt: str) -> str:
    """`sha256:…` over the canonical JSON of the call and the approval's salt."""
    document = _document(fields)
    document["salt"] = salt
    return f"sha256:{hashlib.sha256(canonical_json(document)).hexdigest()}"


def attach_key(fields: CallFields, tenant_key: bytes) -> str:
    """The tenant HMAC by which a call that is sent again finds its open approval (no salt)."""
    return hmac.new(tenant_key, canonical_json(_document(fields)), hashlib.sha256).hexdigest()


def chain_digest(chain_name: str, chain_json: str) -> str:
    """`sha256:…` of a chain as the bundle has it, so that a changed chain is noticed."""
    document: JsonValue = {"name": chain_name, "chain": json.loads(chain_json)}
    return f"sha256:{hashlib.sha256(canonical_json(document)).hexdigest()}"


def _document(fields: CallFields) -> dict[str, JsonValue]:
    return {
        "v": DIGEST_VERSION,
        "tenant": fields.tenant,
        "workspace": fields.workspace,
        "environment": fields.environment,
        "issuer": fields.issuer,
        "subject": fields.subject,
        "on_behalf_of": fields.on_behalf_of,
        "instance": fields.instance,
        "action": fields.action,
        "resource": json.loads(fields.resource_json),
        "args": json.loads(fields.args_json),
        "method": fields.method,
        "path": fields.path,
        "query": fields.query,
        "content_type": fields.content_type,
        "headers": json.loads(fields.headers_json),
        "body_sha256": fields.body_sha256,
        "target": fields.target,
        "idempotency_key": fields.idempotency_key,
    }
