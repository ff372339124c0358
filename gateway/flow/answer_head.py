"""What the gate itself reads of the head of an upstream's answer.

Guarantees: an answer in a coding that nobody asked for is refused; what stays of the headers is what the manifest lets
through. Leaves the body to `gateway.flow.driver`.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.connectors.outbound import HeaderPolicy, check_coding, kept_response_headers
from gateway.flow.events import AnswerBegan

_READ: Final = frozenset({"content-length", "content-type", "content-encoding"})
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
"""A longer number is read as no length at all: the body is bounded as it comes."""


def answer_began(status: int, received: list[tuple[str, str]], policy: HeaderPolicy) -> AnswerBegan:
    """The event of an answer whose headers came as `received`, names in lower case. Raises `Refusal` for a coded one."""
    length, media_type = None, ""
    for name, value in received:
        if name not in _READ:
            continue
        if name == "content-type":
            media_type = value.partition(";")[0].strip().lower()
        elif name == "content-encoding":
            check_coding(value)
        elif _LENGTH.fullmatch(value) is not None:
            length = int(value)
    return AnswerBegan(status, kept_response_headers(received, policy), length, media_type)
