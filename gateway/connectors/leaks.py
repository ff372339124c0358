"""Injected secrets in answers: seen before they leave, across chunk borders, without delaying other bytes.

Guarantees: no byte sequence that is one of the injected credential's spellings leaves whole or in part: bytes that
could be the start of a secret are held back until the next bytes show they are not. Leaves to the flow what happens
then (page 12 rule 5: 502 ``upstream_failed``, or the stream is cut).

A spelling that the upstream encodes otherwise (compressed, split, encrypted) is not recognised; answers are asked for
uncompressed for that reason.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from gateway.edge.problem import refusal

SECRET_MIN_BYTES: Final = 8
"""Shorter secrets would be found in ordinary text."""


class Spellings(tuple[bytes, ...]):
    """Byte sequences that must not leave, measured once."""

    longest: int
    starts: frozenset[bytes]

    def __new__(cls, secrets: Iterable[bytes] = ()) -> Spellings:
        """Take the sequences and note the length of the longest and the octets they begin with."""
        made = super().__new__(cls, secrets)
        made.longest = max((len(secret) for secret in made), default=0)
        made.starts = frozenset(secret[:1] for secret in made)
        return made


def spellings(secrets: Iterable[str]) -> Spellings:
    """The byte sequences to look for: each secret as it is, as a header carries it, URL-quoted, JSON-escaped and in base64."""
    found: dict[bytes, None] = {}
    for secret in secrets:
        raw = secret.encode("utf-8")
        if len(raw) < SECRET_MIN_BYTES:
            continue
        escaped = secret.replace("\\", "\\\\").replace('"', '\\"').replace("/", "\\/")
        if not secret.isascii() and max(secret) <= "\xff" and len(secret) >= SECRET_MIN_BYTES:
            found[secret.encode("latin-1")] = None  # as `egress.wire` writes it into a header, so as it is echoed
        for form in (raw, quote(secret, safe="").encode(), escaped.encode("utf-8"), base64.b64encode(raw)):
            found[form] = None
    return Spellings(found)


class LeakDetector:
    """Passes the bytes of one answer through. `secrets` as `spellings` gives them; one detector per answer."""

    __slots__ = ("_held", "_secrets")

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets = secrets if isinstance(secrets, Spellings) else Spellings(secrets)
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may leave now. Raises `Refusal` ``upstream_failed`` when a secret is in the answer."""
        if not self._secrets:
            return chunk
        window = self._held + chunk if self._held else chunk
        self.check_whole(window)
        hold = self._suspicious_suffix(window)
        self._held = window[len(window) - hold :] if hold else b""
        return window[: len(window) - hold] if hold else window

    def finish(self) -> bytes:
        """What was held back; nothing follows it, so it is no secret."""
        held, self._held = self._held, b""
        return held

    def check_whole(self, raw: bytes) -> None:
        """Raise for a secret in `raw`, which nothing follows."""
        for secret in self._secrets:
            if secret in raw:
                raise refusal("upstream_failed", "the answer held a credential of the instance")

    def _suspicious_suffix(self, window: bytes) -> int:
        """The length of the longest suffix of `window` that a secret begins with."""
        longest = self._secrets.longest
        tail = window[-(longest - 1) :] if longest > 1 else b""
        best = 0
        for start in self._secrets.starts:
            at = tail.find(start)
            while at >= 0 and len(tail) - at > best:
                suffix = tail[at:]
                if any(secret.startswith(suffix) for secret in self._secrets):
                    best = len(suffix)
                    break
                at = tail.find(start, at + 1)
        return best
