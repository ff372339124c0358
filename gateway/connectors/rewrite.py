"""Upstream addresses in answers become the gate's, so that clients who follow them stay behind it.

Guarantees: an absolute URL of a known upstream that begins a JSON string or stands in `Link` or `Location` is replaced
by the gate's external URL; an upload URL gets a single-use ticket or the answer is refused; every other byte of the
answer stays as it was, and an answer that does not name the upstream is handed back as the same object. Leaves to the
flow the reading of the body and its limits.

**Security**: the external URL comes from the configuration, never from `Host` (page 12 rule 18). A host must end where
the URL's authority ends, so ``http://upstream.evil.example`` and ``http://upstream@evil`` are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import orjson

from bundles.canonical import JsonValue
from bundles.errors import BundleRefused
from bundles.manifest import ConnectorManifest
from gateway.edge.problem import refusal
from gateway.edge.tokens import TICKET_PARAMETER

BODY_MAX_BYTES: Final = 16 << 20
"""A longer JSON answer is not searched; the flow passes it on as it is or refuses it."""

IssueTicket: TypeAlias = Callable[[str, str], str]
"""(instance, upstream path) → ticket."""

_JSON_PATH = re.compile(r"\$(?:\.\.?[A-Za-z0-9_*-]+|\[\*\])+")
_ANYWHERE = re.compile(r"\$\.\.([A-Za-z0-9_-]+)")
_STEP = re.compile(r"(\.\.?)([A-Za-z0-9_*-]+)|\[\*\]")
_JSON_TYPE = re.compile(r"\s*application/(?:[A-Za-z0-9!#$&^_.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_LINK_TARGET = re.compile(r"<([^<>]*)>")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class RewriteTarget:
    """One instance as both sides see it: its ``base_url`` and the gate's ``…/c/{instance}``."""

    instance: str
    upstream_base: str
    external_base: str


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of a JSON path; `pattern` None is any member or item."""

    deep: bool
    pattern: re.Pattern[str] | None


class Rewriter:
    """The rewriting rules of one instance, compiled once.

    JSON paths are the subset ``$.a.b``, ``$..a``, ``$.a[*].b``, with ``*`` as a wildcard within a name.
    """

    __slots__ = (
        "_by_base",
        "_candidates",
        "_everywhere",
        "_headers",
        "_hosts",
        "_leaves",
        "_names",
        "_own",
        "_paths",
        "_start",
        "_tickets",
        "searches_bodies",
    )

    def __init__(self, manifest: ConnectorManifest, targets: Sequence[RewriteTarget]) -> None:
        """Compile. `targets` holds the instance itself first, then every instance its answers may name.

        Raises `BundleRefused` ``manifest_invalid`` for a JSON path outside the subset.
        """
        self._own = targets[0]
        self._names = frozenset(found[1] for path in manifest.rewrite.json_ if (found := _ANYWHERE.fullmatch(path)))
        others = (path for path in manifest.rewrite.json_ if _ANYWHERE.fullmatch(path) is None)
        self._paths = tuple(_parse_path(path) for path in others)
        self._tickets = tuple(_parse_path(path) for path in manifest.rewrite.tickets)
        self.searches_bodies: Final = bool(self._paths or self._names or self._tickets)
        self._everywhere = "$..*" in manifest.rewrite.json_
        self._leaves = tuple(b'"' + path.rpartition(".")[2].encode() + b'"' for path in manifest.rewrite.tickets)
        self._headers = frozenset(name.lower() for name in manifest.rewrite.headers)
        self._by_base = {base: target for target in reversed(targets) for base in _spellings(target.upstream_base)}
        bases = sorted(self._by_base, key=len, reverse=True)
        self._hosts = tuple({urlsplit(base).netloc.encode("ascii") for base in bases})
        self._start = re.compile(rf"({'|'.join(map(re.escape, bases))})(?=[/?#{{]|\Z)", re.IGNORECASE)
        starts = b"|".join(re.escape(base.encode("ascii")).replace(b"/", rb"\\?/") for base in bases)
        self._candidates = re.compile(
            rb'(?<!\\)"(' + starts + rb')(?=[/?#{"]|\\/)([^"\\]*(?:\\.[^"\\]*)*)"(?!\s*:)', re.IGNORECASE
        )

    def applies_to(self, content_type: str | None) -> bool:
        """Whether an answer of this media type must be read whole, because URLs in it may be rewritten."""
        if not self.searches_bodies:
            return False
        return content_type is not None and _JSON_TYPE.fullmatch(content_type) is not None

    def body(self, raw: bytes, issue_ticket: IssueTicket) -> bytes:
        """A JSON answer with upstream URLs replaced; `raw` itself when there are none.

        Raises `Refusal` ``upstream_failed`` when the answer names the upstream and is no JSON, or when an upload URL
        leads to a host that is no instance of the gate and so would leave it silently.
        """
        has_tickets = any(leaf in raw for leaf in self._leaves)
        if not has_tickets and not any(host in raw for host in self._hosts):
            return raw
        if self._everywhere and not has_tickets:
            return self._candidates.sub(self._replaced, raw)
        try:
            document: JsonValue = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise refusal("upstream_failed", "the service's answer is no JSON") from error
        uploads = _texts(document, self._tickets)
        plain = None if self._everywhere else _texts(document, self._paths) | _named_texts(document, self._names)
        ticketed: set[str] = set()

        def replace(found: re.Match[bytes]) -> bytes:
            text = orjson.loads(found[0])
            if text in uploads:
                ticketed.add(text)
                return self._with_ticket(found, issue_ticket)
            return found[0] if plain is not None and text not in plain else self._replaced(found)

        rewritten = self._candidates.sub(replace, raw)
        if uploads - ticketed:
            raise refusal("upstream_failed", "an upload URL in the answer leads past the gate")
        return rewritten

    def _target(self, found: re.Match[bytes]) -> RewriteTarget:
        return self._by_base[found[1].replace(b"\\", b"").decode("ascii").lower()]

    def _replaced(self, found: re.Match[bytes]) -> bytes:
        """The string with another base; what follows the base stays as it was written."""
        return b'"' + self._target(found).external_base.encode("ascii") + found[2] + b'"'

    def _with_ticket(self, found: re.Match[bytes], issue_ticket: IssueTicket) -> bytes:
        target = self._target(found)
        rest: str = orjson.loads(b'"' + found[2] + b'"')
        bare, hash_mark, fragment = rest.partition("#")
        path, _, query = bare.partition("?")
        ticket = issue_ticket(target.instance, path or "/")
        joined = f"{query}&" if query else ""
        url = f"{target.external_base}{path}?{joined}{TICKET_PARAMETER}={ticket}{hash_mark}{fragment}"
        return orjson.dumps(url)

    def url(self, url: str) -> str:
        """`url` as it is reached through the gate; unchanged when it leads elsewhere."""
        found = self._start.match(url)
        return url if found is None else self._by_base[found[1].lower()].external_base + url[found.end() :]

    def headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Answer headers with `Link`, `Location` and what else the manifest names rewritten; names as they came.

        A path-absolute reference is relative to the upstream and becomes one below the gate's instance path.
        **Source**: RFC 8288 §3, RFC 9110 §10.2.2.
        """
        rewritten: list[tuple[str, str]] = []
        for name, value in headers:
            if name.lower() in self._headers:
                if "<" in value:
                    value = _LINK_TARGET.sub(lambda found: f"<{self._reference(found[1])}>", value)
                else:
                    value = self._reference(value)
            rewritten.append((name, value))
        return rewritten

    def _reference(self, reference: str) -> str:
        if reference.startswith("/") and not reference.startswith("//"):
            parts = urlsplit(self._own.upstream_base)
            return self.url(f"{parts.scheme}://{parts.netloc}{reference}")
        return self.url(reference)


def _spellings(upstream_base: str) -> tuple[str, ...]:
    """A base URL in lower case, with and without the default port of its scheme."""
    parts = urlsplit(upstream_base.rstrip("/").lower())
    if not parts.netloc or parts.scheme not in _DEFAULT_PORTS:
        raise BundleRefused("manifest_invalid", f"{upstream_base!r} is no absolute http URL")
    port = _DEFAULT_PORTS[parts.scheme]
    host = parts.netloc.removesuffix(port)
    bases = [f"{parts.scheme}://{host}{parts.path}"]
    if parts.port is None or parts.netloc.endswith(port):
        bases.append(f"{parts.scheme}://{host}{port}{parts.path}")
    return tuple(bases)


def _parse_path(path: str) -> tuple[_Step, ...]:
    if _JSON_PATH.fullmatch(path) is None:
        raise BundleRefused("manifest_invalid", f"{path!r} is outside the supported JSON paths")
    steps: list[_Step] = []
    for dots, name in _STEP.findall(path):
        pattern = None
        if name not in ("", "*"):
            pattern = re.compile(".*".join(re.escape(part) for part in name.split("*")), re.DOTALL)
        steps.append(_Step(dots == "..", pattern))
    return tuple(steps)


def _texts(document: JsonValue, paths: Iterable[tuple[_Step, ...]]) -> frozenset[str]:
    """Every text that one of `paths` leads to."""
    found: set[str] = set()
    for steps in paths:
        nodes: list[JsonValue] = [document]
        for step in steps:
            if step.deep:
                nodes = _descendants(nodes)
            nodes = [child for node in nodes for child in _children(node, step.pattern)]
        found.update(node for node in nodes if isinstance(node, str))
    return frozenset(found)


def _named_texts(document: JsonValue, names: frozenset[str]) -> frozenset[str]:
    """Every text that is a member called one of `names`, at any depth: what most manifests ask for, in one walk."""
    found: set[str] = set()
    waiting: list[JsonValue] = [document]
    while names and waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                if isinstance(value, str):
                    if key in names:
                        found.add(value)
                elif isinstance(value, dict | list):
                    waiting.append(value)
        elif isinstance(node, list):
            waiting.extend(node)
    return frozenset(found)


def _children(node: JsonValue, pattern: re.Pattern[str] | None) -> list[JsonValue]:
    if isinstance(node, dict):
        if pattern is None:
            return list(node.values())
        return [value for key, value in node.items() if pattern.fullmatch(key) is not None]
    if isinstance(node, list) and pattern is None:
        return node
    return []


def _descendants(nodes: list[JsonValue]) -> list[JsonValue]:
    """`nodes` and all containers below them, without recursion."""
    found: list[JsonValue] = []
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            found.append(node)
            waiting.extend(node.values())
        elif isinstance(node, list):
            found.append(node)
            waiting.extend(node)
    return found
