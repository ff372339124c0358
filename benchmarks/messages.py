"""Where an HTTP/1.1 message ends, for both ends of a measurement: the load generator's answers, the target's requests."""

from __future__ import annotations

from typing import Final

HEAD_END: Final = b"\r\n\r\n"


def message_size(data: bytes) -> int | None:
    """How many bytes of `data`, which begins with a head, the message takes; none while it is not whole.

    Raises `ValueError` for a length that is no number.
    """
    end = data.find(HEAD_END)
    if end < 0:
        return None
    head, at = data[:end].lower(), end + len(HEAD_END)
    if b"\r\ntransfer-encoding: chunked" in head:
        return _after_chunks(data, at)
    field = head.find(b"\r\ncontent-length:")
    if field >= 0:
        line_end = head.find(b"\r", field + 17)
        at += int(head[field + 17 : line_end if line_end > 0 else end])
    return at if at <= len(data) else None


def _after_chunks(data: bytes, at: int) -> int | None:
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        size = int(data[at:line_end].partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if at > len(data):
            return None
        if size == 0:
            return at
