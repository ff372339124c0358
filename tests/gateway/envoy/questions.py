"""Questions as Envoy would ask them, made field by field, and answers read back."""

from __future__ import annotations

from gateway.envoy.wire import LENGTH, Message, fields, octets_field, text_field

ROUTE = {"tidegate_instance": "desk", "tidegate_body": "whole"}
Pairs = tuple[tuple[str, str], ...]


def header_map(pairs: Pairs) -> bytes:
    """`HttpRequest.header_map` with raw values."""
    entries = (octets_field(1, text_field(1, name) + octets_field(3, value.encode("latin-1"))) for name, value in pairs)
    return octets_field(13, b"".join(entries))


def http_request(
    method: str = "GET",
    target: str = "/notes/a1",
    headers: Pairs = (),
    *,
    host: str = "desk.example",
    body: bytes = b"",
    extra: bytes = b"",
) -> bytes:
    """`AttributeContext.HttpRequest`."""
    pseudo = ((":method", method), (":path", target), (":authority", host))
    parts = [text_field(2, method), text_field(4, target), text_field(5, host), header_map((*pseudo, *headers))]
    if body:
        parts.append(octets_field(12, body))
    return b"".join(parts) + extra


def question(http: bytes, route: dict[str, str] | None = None) -> bytes:
    """A `CheckRequest` around a request."""
    extensions = b"".join(
        octets_field(10, text_field(1, key) + text_field(2, value))
        for key, value in (ROUTE if route is None else route).items()
    )
    return octets_field(1, octets_field(4, octets_field(2, http)) + extensions)


def status_of(answer: bytes) -> int:
    """The HTTP status of a denial; 200 for a yes."""
    read = Message(answer)
    if read.has(3):
        return 200
    value = fields(read.message(2).octets(1))[0].value
    return value if isinstance(value, int) else 0


def code_of(answer: bytes) -> int:
    """`google.rpc.Status.code`."""
    found = fields(Message(answer).octets(1))
    value = found[0].value if found else 0
    return value if isinstance(value, int) else -1


def _options(message: Message, number: int) -> Pairs:
    return tuple((option.message(1).text(1), option.message(1).text(2)) for option in message.messages(number))


def yes(answer: bytes) -> tuple[Pairs, tuple[str, ...], Pairs]:
    """What a yes puts into the request, takes out of it, and puts into the answer."""
    allowed = Message(answer).message(3)
    removed = tuple(
        field.value.decode()
        for field in fields(Message(answer).octets(3))
        if field.number == 5 and field.kind == LENGTH and isinstance(field.value, bytes)
    )
    return _options(allowed, 2), removed, _options(allowed, 6)


def denial(answer: bytes) -> tuple[Pairs, str]:
    """The headers and the body of a denial."""
    refused = Message(answer).message(2)
    return _options(refused, 2), refused.text(3)
