"""Header fields as they are compared: lower-case names, values as they came, and what was found in them before.

Guarantees: what is kept with fields is true of every head that has exactly them, and what is kept in all is bounded. Clients
of one service send the same head again and again; what is worked out of it is worked out once. Leaves to `headers`,
`tokens`, `connectors.outbound` and `egress.wire` what that is.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Final, TypeAlias

RawHeaders: TypeAlias = tuple[tuple[bytes, bytes], ...]

REMEMBERED_MAX: Final = 512
REMEMBERED_MAX_BYTES: Final = 4_096
"""How many different sets of fields are remembered, and how large one may be."""
FOUND_MAX: Final = 16
"""How many answers are kept with one set of fields."""


class HeaderFields(tuple[tuple[str, str], ...]):
    """Pairs of lower-case name and value in their order; `found` maps a question to its answer about these fields.

    Only answers that depend on nothing but the fields and the question are kept, and none that may change.
    """

    found: dict[Hashable, Any]

    def __new__(cls, pairs: tuple[tuple[str, str], ...] = ()) -> HeaderFields:
        """Take the pairs; nothing is found in them yet."""
        made = super().__new__(cls, pairs)
        made.found = {}
        return made

    def keep(self, question: Hashable, answer: Any) -> None:
        """Remember an answer; when there are too many, all earlier ones are forgotten."""
        if len(self.found) >= FOUND_MAX:
            self.found.clear()
        self.found[question] = answer


_remembered: dict[RawHeaders, HeaderFields] = {}


def header_fields(raw: RawHeaders) -> HeaderFields:
    """The fields of a head, text in latin-1."""
    fields = _remembered.get(raw)
    if fields is None:
        fields = HeaderFields(tuple([(lower_name(name), value.decode("latin-1")) for name, value in raw]))
        if sum([len(name) + len(value) for name, value in raw]) <= REMEMBERED_MAX_BYTES:
            if len(_remembered) >= REMEMBERED_MAX:
                _remembered.clear()
            _remembered[raw] = fields
    return fields


@lru_cache(maxsize=1024)
def lower_name(raw: bytes) -> str:
    """A header's name as it is compared: text in lower case."""
    return raw.decode("latin-1").lower()
