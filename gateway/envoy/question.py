"""From Envoy's question to a request as the flow of a call takes it, and from a call that may go to what Envoy does to it.

Guarantees: the instance is the one that the *route's* configuration names, never the caller; the request is for that
instance's own host and path; what Envoy forwards is, header by header, what was decided. Leaves deciding to `door_flow`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from gateway.edge.headers import HeaderPairs, Prefer, RequestHead
from gateway.edge.problem import refusal
from gateway.edge.url import canonical_path
from gateway.envoy.check_request import CheckRequest
from gateway.flow.values import InstancePlan, ProxyRequest

ROUTE_INSTANCE: Final = "tidegate_instance"
"""The route's context extension that names the instance."""
ROUTE_BODY: Final = "tidegate_body"
"""The route's context extension that says whether bodies come with the question; only `whole` is accepted."""
BODY_WHOLE: Final = "whole"
INSTANCE_MAX_CHARACTERS: Final = 64
NO_WAITING: Final = Prefer(wait_seconds=0)
"""A held call is answered at once: Envoy waits for milliseconds, people take longer."""
KEPT_BY_ENVOY: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})
"""Framing and addressing: Envoy's own, and checked against the decision before (host, length) or refused (upgrade)."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class HeaderChanges(NamedTuple):
    """What Envoy does to the request's headers before it forwards them."""

    put: HeaderPairs
    remove: tuple[str, ...]


def route_instance(asked: CheckRequest) -> str:
    """The instance that the route's configuration names; empty when it names none."""
    return asked.route.get(ROUTE_INSTANCE, "")[:INSTANCE_MAX_CHARACTERS]


def request_head(asked: CheckRequest, *, uri_max_bytes: int) -> RequestHead:
    """The head in its canonical reading. Raises `malformed_request` or `uri_too_long`."""
    return RequestHead(asked.method, canonical_path(asked.target, uri_max_bytes=uri_max_bytes), asked.headers)


def proxy_request(
    asked: CheckRequest, head: RequestHead, plan: InstancePlan, *, call_id: str, now: float
) -> ProxyRequest:
    """The request as the reverse proxy would have got it below ``/c/{instance}``.

    Raises `unclassified` when it is not for the instance's own host and path.
    """
    path = _below(head.target.path, plan)
    _check_host(asked.host, plan)
    segments = head.target.segments[len(head.target.segments) - len(path[1:].split("/")) :]
    return ProxyRequest(call_id, plan, head, path, segments, NO_WAITING, now, bool(asked.body))


def _below(path: str, plan: InstancePlan) -> str:
    prefix = urlsplit(plan.base_url).path.rstrip("/")
    if prefix and not path.startswith(f"{prefix}/"):
        raise refusal("unclassified", "the path lies outside the instance's base_url")
    return path[len(prefix) :]


def _check_host(host: str, plan: InstancePlan) -> None:
    """**Security**: a route for several hosts would otherwise let the caller's Host pick another one than was decided."""
    parts = urlsplit(plan.base_url)
    name, port = (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS[parts.scheme]
    bare = f"[{name}]" if ":" in name else name
    names = {f"{bare}:{port}"}
    if port == _DEFAULT_PORTS[parts.scheme]:
        names.add(bare)
    if host.lower() not in names:
        raise refusal("unclassified", "the request is for another host than the instance's base_url")


def header_changes(asked: HeaderPairs, outbound: HeaderPairs) -> HeaderChanges:
    """What makes the headers that Envoy holds into those that were decided: the caller's token and everything else that
    the manifest does not let through is taken out."""
    going = {name for name, _ in outbound}
    remove = sorted({name for name, _ in asked} - going - KEPT_BY_ENVOY)
    held = frozenset(asked)
    put = tuple([pair for pair in outbound if pair not in held])
    return HeaderChanges(put, tuple(remove))


def check_route(route: Mapping[str, str]) -> None:
    """Raise `malformed_request` unless the route says that bodies come whole with the question.

    **Security**: over HTTP/2 a body needs no announcement in the head; without `with_request_body` it would be
    forwarded unseen.
    """
    if route.get(ROUTE_BODY) != BODY_WHOLE:
        raise refusal("malformed_request", f"the route's context_extensions do not say {ROUTE_BODY}: {BODY_WHOLE}")
