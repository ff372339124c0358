"""Digests, and message digests with a key: ``crypto.md5``, ``crypto.sha*`` and ``crypto.hmac.*``.

Guarantees OPA's answer for every text: digests in lower-case hexadecimal of the text's UTF-8, keys of any length. An operand
that is no text is undefined; nothing is declined but a text that is no Unicode, which Wasm cannot hand over.

**Security**: MD5 and SHA-1 are here because policies compare with digests that others made; neither says that a text is
authentic. The key of ``crypto.hmac.*`` is an operand and so in the bundle or in the input: it is no secret of the gate.
``crypto.hmac.equal`` takes as long for texts that differ early as for those that differ late.

**Source**: OPA's ``v1/topdown/crypto.go``; RFC 1321, RFC 2104, FIPS 180-4.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from pdp.wasm.builtins.values import Declined, Undefined, Value

Digest = Callable[..., Any]
"""A constructor as ``hashlib`` has them."""

# Said so, machines in FIPS mode still have them.
_MD5: Final[Digest] = partial(hashlib.md5, usedforsecurity=False)
_SHA1: Final[Digest] = partial(hashlib.sha1, usedforsecurity=False)


def _octets(operand: Value) -> bytes:
    """The UTF-8 of a text; raises ``Undefined`` for another type."""
    if not isinstance(operand, str):
        raise Undefined
    try:
        return operand.encode()
    except UnicodeEncodeError as refused:
        raise Declined("a text that is no Unicode") from refused


def _digest(constructor: Digest, text: Value) -> Value:
    return str(constructor(_octets(text)).hexdigest())


def _keyed(constructor: Digest, message: Value, key: Value) -> Value:
    return hmac.new(_octets(key), _octets(message), constructor).hexdigest()


def equal(first: Value, second: Value) -> Value:
    """Whether two texts are the same, told in a time that depends on their lengths only."""
    return hmac.compare_digest(_octets(first), _octets(second))


BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {
    "crypto.hmac.equal": equal,
    "crypto.hmac.md5": partial(_keyed, _MD5),
    "crypto.hmac.sha1": partial(_keyed, _SHA1),
    "crypto.hmac.sha256": partial(_keyed, hashlib.sha256),
    "crypto.hmac.sha512": partial(_keyed, hashlib.sha512),
    "crypto.md5": partial(_digest, _MD5),
    "crypto.sha1": partial(_digest, _SHA1),
    "crypto.sha256": partial(_digest, hashlib.sha256),
}
"""Name to function; raise ``Undefined`` and ``Declined``."""
