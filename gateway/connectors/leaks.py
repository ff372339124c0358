"""Injected secrets in answers: seen before they leave, across chunk borders, without delaying other bytes.

Guarantees: no byte sequence that is one of the injected credential's spellings leaves whole or in part: bytes that
could be the start of a secret are held back until the next bytes show they are not. Leaves to the flow what happens
then (security rule 5: 502 ``upstream_failed``, or the stream is cut).

A spelling that the upstream encodes otherwise (compressed, split, encrypted) is not recognised; answers are asked for
uncompressed for that reason.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from gateway.edge.problem import refusal

SECRET_MIN_BYTES: Final = 8
"""Shorter secrets would be found in ordinary text."""


_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")  # every encoder leaves it as it is
_RUN = re.compile(rb"[A-Za-z0-9]++")
_UNQUOTED: Final = ("", "/", "!*'()", "*", ";/?:@&=+$,#!*'()")
"""What the usual URL encoders leave as it is beside letters, digits and ``-._~``."""
_JSON_ESCAPED: Final = ("", "<>&", "<>&'", "<>&'+`", "<>&'\"")
"""What the usual JSON encoders write as ``\\u00XX`` beside what they must."""


class Spellings(tuple[bytes, ...]):
    """Byte sequences that must not leave, measured once.

    `searched` holds them by a piece that is in each of a group: whatever answer lacks the piece, and almost all do, is
    searched for nothing else.
    """

    longest: int
    starts: frozenset[bytes]
    searched: tuple[tuple[bytes, tuple[bytes, ...]], ...]

    def __new__(cls, secrets: Iterable[bytes] = ()) -> Spellings:
        """Take the sequences and note the length of the longest and the octets they begin with."""
        made = super().__new__(cls, secrets)
        made.longest = max((len(secret) for secret in made), default=0)
        made.starts = frozenset(secret[:1] for secret in made)
        made.searched = _by_pieces(made)
        return made


def _by_pieces(secrets: tuple[bytes, ...]) -> tuple[tuple[bytes, tuple[bytes, ...]], ...]:
    groups: list[tuple[bytes, tuple[bytes, ...]]] = []
    left = secrets
    while left:
        piece = max(_RUN.findall(left[0]), key=len, default=left[0])
        group = tuple(secret for secret in left if piece in secret)
        groups.append((piece if len(group) > 1 else group[0], group))
        left = tuple(secret for secret in left if piece not in secret)
    return tuple(groups)


def spellings(secrets: Iterable[str]) -> Spellings:
    """The byte sequences to look for: each secret as it is, as a header carries it, and in base64, and each of these as the
    usual encoders write it into URLs, forms, JSON and HTML. One that another one is part of stands for it."""
    found: dict[bytes, None] = {}
    for secret in secrets:
        raw = secret.encode("utf-8")
        if len(raw) < SECRET_MIN_BYTES:
            continue
        if not secret.isascii() and max(secret) <= "\xff" and len(secret) >= SECRET_MIN_BYTES:
            found[secret.encode("latin-1")] = None  # as `egress.wire` writes it into a header, so as it is echoed
        # Without padding: with it, it is still found.
        in_base64 = [
            encode(raw).rstrip(b"=").decode("ascii") for encode in (base64.b64encode, base64.urlsafe_b64encode)
        ]
        for text in (secret, *in_base64):
            found[text.encode("utf-8")] = None
            if _PLAIN.fullmatch(text) is None:
                for form in (*_in_urls(text), *_in_json(text), html.escape(text), html.escape(text, quote=False)):
                    found[form.encode("utf-8")] = None
    least = [form for form in found if not any(other in form for other in found if other != form)]
    return Spellings(least)


def _in_urls(text: str) -> Iterator[str]:
    """Source: RFC 3986 §2.1, WHATWG URL (forms write a space as ``+``), ECMA-262 (encodeURIComponent and encodeURI)."""
    for unquoted in _UNQUOTED:
        quoted = quote(text, safe=unquoted)
        for form in (quoted, quoted.replace("%20", "+")):
            yield form
            yield _ESCAPE.sub(lambda escape: escape[0].lower(), form)


def _in_json(text: str) -> Iterator[str]:
    """Source: RFC 8259 §7."""
    characters = set(text)
    beyond = {character for character in characters if not character.isascii()}
    for escaped in _JSON_ESCAPED:
        for numbered in (characters.intersection(escaped), characters.intersection(escaped) | beyond):
            for digits in ("04x", "04X"):
                written: dict[str, str | int | None] = {
                    '"': '\\"',
                    "\\": "\\\\",
                    **{one: _numbered(one, digits) for one in numbered},
                }
                form = text.translate(str.maketrans(written))
                yield form
                yield form.replace("/", "\\/")


def _numbered(character: str, digits: str) -> str:
    units = character.encode("utf-16-be")
    return "".join([f"\\u{int.from_bytes(units[at : at + 2]):{digits}}" for at in range(0, len(units), 2)])


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
        for piece, secrets in self._secrets.searched:
            if piece in raw and any(secret in raw for secret in secrets):
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
