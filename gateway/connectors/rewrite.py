"""Upstream addresses in answers become the gate's, so that clients who follow them stay behind it.

Guarantees: an absolute URL of a known upstream that begins a JSON string or stands in `Link` or `Location` is replaced
by the gate's external URL; an upload URL gets a single-use ticket or the answer is refused; every other byte of the
answer stays as it was, and an answer that does not name the upstream is handed back as the same object. Leaves to the
flow the reading of the body and its limits.

**Security**: the external URL comes from the configuration, never from `Host` (security rule 18). A host must end where
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
_MEMBER_ANYWHERE = re.compile(r"\$\.\.([A-Za-z0-9_*-]+)")
_STEP = re.compile(r"(\.\.?)([A-Za-z0-9_*-]+)|\[\*\]")
_JSON_TYPE = re.compile(r"\s*application/(?:[A-Za-z0-9!#$&^_.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_LINK_TARGET = re.compile(r"<([^<>]*)>")
EVERYTHING: Final = "$..*"
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
        "_members",
        "_names",
        "_own",
        "_paths",
        "_start",
        "_ticket_leaves",
        "_tickets",
        "searches_bodies",
    )

    def __init__(self, manifest: ConnectorManifest, targets: Sequence[RewriteTarget]) -> None:
        """Compile. `targets` holds the instance itself first, then every instance its answers may name.

        Raises `BundleRefused` ``manifest_invalid`` for a JSON path outside the subset.
        """
        self._own = targets[0]
        self._everywhere = EVERYTHING in manifest.rewrite.json_
        anywhere = {path: found[1] for path in manifest.rewrite.json_ if (found := _MEMBER_ANYWHERE.fullmatch(path))}
        anywhere.pop(EVERYTHING, None)
        others = [path for path in manifest.rewrite.json_ if path not in anywhere]
        self._names = frozenset(anywhere.values())
        self._paths = tuple(_parse_path(path) for path in others)
        self._tickets = tuple(_parse_path(path) for path in manifest.rewrite.tickets)
        self.searches_bodies: Final = bool(self._paths or self._names or self._tickets)
        self._leaves = tuple(_leaf(path) for path in others)
        self._ticket_leaves = tuple(_leaf(path) for path in manifest.rewrite.tickets)
        self._headers = frozenset(name.lower() for name in manifest.rewrite.headers)
        self._by_base = {base: target for target in reversed(targets) for base in _spellings(target.upstream_base)}
        bases = sorted(self._by_base, key=len, reverse=True)
        self._hosts = tuple({urlsplit(base).netloc.encode("ascii") for base in bases})
        self._start = re.compile(rf"({'|'.join(map(re.escape, bases))})(?=[/?#{{]|\Z)", re.IGNORECASE)
        starts = b"|".join(re.escape(base.encode("ascii")).replace(b"/", rb"\\?/") for base in bases)
        self._candidates = re.compile(
            rb'"(?<!\\")(' + starts + rb')(?=[/?#{"]|\\/)([^"\\]*+(?:\\.[^"\\]*+)*+)"(?!\s*:)', re.IGNORECASE
        )
        keys = "|".join(_wildcards(name, '[^"]') for name in sorted(self._names)).encode("ascii")
        self._members = re.compile(rb'("(?<!\\")(?:' + keys + rb')"\s*+:\s*+)"(?i:(' + starts + rb'))(?=[/?#{"]|\\/)')

    def applies_to(self, content_type: str | None) -> bool:
        """Whether an answer of this media type must be read whole, because URLs in it may be rewritten."""
        if not self.searches_bodies:
            return False
        return content_type is not None and _JSON_TYPE.fullmatch(content_type) is not None

    def body(self, raw: bytes, issue_ticket: IssueTicket) -> bytes:
        """A JSON answer with upstream URLs replaced; `raw` itself when there are none.

        Members that are rewritten by their name alone (``$..url``, ``$..*_url``) are found in the text as it is, in time
        that is linear and short: the loop waits for it. Only paths from the root take the document.

        Raises `Refusal` ``upstream_failed`` when the document is needed and the answer is no JSON, or when an upload URL
        leads to a host that is no instance of the gate and so would leave it silently.
        """
        has_tickets = any(leaf in raw for leaf in self._ticket_leaves)
        if not has_tickets and not any(host in raw for host in self._hosts):
            return raw
        if self._everywhere and not has_tickets:
            return self._candidates.sub(self._replaced, raw)
        if self._is_flat(raw, has_tickets):
            return self._members.sub(self._member_replaced, raw) if self._names else raw
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

    def _is_flat(self, raw: bytes, has_tickets: bool) -> bool:
        """Whether nothing in `raw` is at a path that takes the whole document to follow; then it is searched as it is.

        A name that is written with escapes may be at any path.
        """
        if not self._paths and not self._tickets:
            return True
        return not has_tickets and b"\\u00" not in raw and not any(leaf in raw for leaf in self._leaves)

    def _target(self, raw_base: bytes) -> RewriteTarget:
        return self._by_base[raw_base.replace(b"\\", b"").decode("ascii").lower()]

    def _replaced(self, found: re.Match[bytes]) -> bytes:
        """The string with another base; what follows the base stays as it was written."""
        return b'"' + self._target(found[1]).external_base.encode("ascii") + found[2] + b'"'

    def _member_replaced(self, found: re.Match[bytes]) -> bytes:
        """The name of a member, and its text as far as the base goes."""
        return found[1] + b'"' + self._target(found[2]).external_base.encode("ascii")

    def _with_ticket(self, found: re.Match[bytes], issue_ticket: IssueTicket) -> bytes:
        target = self._target(found[1])
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


def _wildcards(name: str, any_character: str) -> str:
    """The pattern of a name in which ``*`` stands for any text; matching takes linear time however many there are."""
    first, *rest = [re.escape(part) for part in name.split("*")]
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>{any_character}*?{part})" for part in middle) + f"{any_character}*{last}"


def _leaf(path: str) -> bytes:
    """What an answer must hold if something in it is at `path`: the last name, or all that is certain of it."""
    name = path.rpartition(".")[2].partition("[")[0].removeprefix("$")
    if not name:
        return b""
    return max(name.split("*"), key=len).encode("ascii") if "*" in name else b'"' + name.encode("ascii") + b'"'


def _parse_path(path: str) -> tuple[_Step, ...]:
    if _JSON_PATH.fullmatch(path) is None:
        raise BundleRefused("manifest_invalid", f"{path!r} is outside the supported JSON paths")
    steps: list[_Step] = []
    for dots, name in _STEP.findall(path):
        pattern = None
        if name not in ("", "*"):
            pattern = re.compile(_wildcards(name, "."), re.DOTALL)
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
    """Every text that is a member called one of `names`, at any depth, in one walk; each key is looked at once."""
    found: set[str] = set()
    if not names:
        return frozenset()
    pattern = re.compile("|".join(_wildcards(name, ".") for name in sorted(names)), re.DOTALL)
    known: dict[str, bool] = {}
    waiting: list[JsonValue] = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                if isinstance(value, str):
                    named = known.get(key)
                    if named is None:
                        named = known[key] = pattern.fullmatch(key) is not None
                    if named:
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
