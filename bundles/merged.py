"""One rulebook out of a full bundle and bundles that carry data only.

Guarantees: a data bundle adds only the roots that the gateway's configuration gives it, holds no rule, module or probe, and
touches nothing of the full bundle or of another one; without data bundles the full bundle comes back as it is. Leaves to
``trusted_set``: whether each of them may be believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from bundles.canonical import JsonValue, canonical_json, sha256_hex
from bundles.content import RULE_ROOTS, package_of, roots_of
from bundles.errors import BundleRefused
from bundles.trusted_set import TrustedBundle

RULEBOOK_ROOTS: Final = RULE_ROOTS | {
    "connectors",
    "chains",
    "limits",
    "routes",
    "prices",
    "windows",
    "roles",
    "system",
}
"""What only a full bundle may say: rules, and the data that the gate itself enforces."""


@dataclass(frozen=True, slots=True)
class DataBundle:
    """A verified bundle and the top-level keys of ``data`` that configuration lets it give."""

    bundle: TrustedBundle
    roots: frozenset[str]


def merge_bundles(full: TrustedBundle, parts: Mapping[str, DataBundle]) -> TrustedBundle:
    """The full bundle with the data of ``parts``; its digest is of all digests by name, its probes are left out.

    Probes were recorded against the full bundle alone: run them on it, not on the result. Raises
    :class:`BundleRefused` ``bundle_not_data_only``, ``bundle_root_not_allowed`` or ``bundle_data_overlap``.

    **Security**: data at a path that rules own would replace them, and a chain or a connector out of a data bundle would
    be policy signed with another key.
    """
    if not parts:
        return full
    owned = _owned(full)
    data: dict[str, JsonValue] = dict(full.data)
    texts: dict[str, bytes] = dict(full.texts)
    digests: dict[str, JsonValue] = {full.name: full.digest}
    ends = [full.expires_at]
    for name, part in sorted(parts.items()):
        check_data_only(part)
        for root in (*part.bundle.data, *part.bundle.texts):
            if root in owned or root in data or root in texts:
                raise BundleRefused("bundle_data_overlap", f"{name}: {root!r} is another bundle's")
        data.update(part.bundle.data)
        texts.update(part.bundle.texts)
        digests[name] = part.bundle.digest
        ends.append(part.bundle.expires_at)
    limited = [end for end in ends if end is not None]
    return replace(
        full,
        data=data,
        texts=texts,
        probes=(),
        digest=f"sha256:{sha256_hex(canonical_json(digests))}",
        expires_at=min(limited) if limited else None,
    )


def check_data_only(part: DataBundle) -> None:
    """Raise unless the bundle holds data of its roots and nothing else."""
    bundle = part.bundle
    if bundle.rego or bundle.wasm is not None or bundle.probes:
        raise BundleRefused("bundle_not_data_only", f"{bundle.name} carries rules, a module or probes")
    given = bundle.data.keys() | bundle.texts.keys()
    foreign = (given | {root.partition("/")[0] for root in roots_of(bundle.manifest)}) - part.roots
    if foreign or part.roots & RULEBOOK_ROOTS:
        named = min(foreign or part.roots & RULEBOOK_ROOTS)
        raise BundleRefused("bundle_root_not_allowed", f"{bundle.name} may not give {named!r}")


def _owned(full: TrustedBundle) -> frozenset[str]:
    """The first steps of everything that the full bundle declares or defines."""
    roots = {root.partition("/")[0] for root in roots_of(full.manifest)}
    return frozenset(roots | {package_of(name, source)[0] for name, source in full.rego.items()} | RULEBOOK_ROOTS)
