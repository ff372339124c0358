"""Which instances an answer may name to whom: an instance's own, and of the hosts in its manifest those that fit the caller.

Guarantees: no answer names an instance that its manifest does not name, or that its caller may not use. Leaves the rewriting
to `gateway.connectors.rewrite`.

**Security**: tenants have instances of one service side by side, at one address or at several; without this the first of
them would be named to all (security rule 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bundles.manifest import ConnectorManifest
from gateway.connectors.rewrite import Rewriter, RewriteTarget
from gateway.edge.identity import Subject

Candidate = tuple[RewriteTarget, Callable[[Subject], bool]]
"""An instance that answers may name, and whether a subject may use it."""


class Rewriters:
    """The rewriters of one instance, each made when a caller first needs it: there are as many as kinds of callers."""

    __slots__ = ("_candidates", "_known", "_manifest", "_own")

    def __init__(self, manifest: ConnectorManifest, own: RewriteTarget, candidates: Sequence[Candidate]) -> None:
        """`candidates` are the other instances that the manifest names. Raises `BundleRefused` as `Rewriter` does."""
        self._manifest = manifest
        self._own = own
        self._candidates = tuple(candidates)
        self._known: dict[tuple[RewriteTarget, ...], Rewriter] = {(): Rewriter(manifest, (own,))}

    def of(self, subject: Subject) -> Rewriter:
        """The rewriter for what is answered to `subject`."""
        if not self._candidates:
            return self._known[()]
        targets = tuple([target for target, admits in self._candidates if admits(subject)])
        known = self._known.get(targets)
        if known is None:
            known = self._known[targets] = Rewriter(self._manifest, (self._own, *targets))
        return known
