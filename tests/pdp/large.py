"""Bundles for the process that checks large ones: signed, with data of the engine's own."""

from __future__ import annotations

import sys
from typing import Any

from bundles.canonical import canonical_json
from bundles.trusted_set import TrustedBundle, TrustPolicy, verify_bundle
from pdp.bundle_frames import Question
from tests.bundles.parts import NOW, good_files, signed, trust

MANIFEST = canonical_json(
    {
        "revision": "r2",
        "roots": ["chains", "connectors", "owners", "policies", "tidegate"],
        "rego_version": 1,
        "metadata": {
            "tidegate": {"version": 1, "profile": "1", "entrypoints": ["tidegate/decision"], "cacheable": False}
        },
    }
)
OWNERS = {"teams": {f"team-{number}": {"limit": number, "share": number / 4} for number in range(40)}, "none": {}}


def archive(**options: Any) -> bytes:
    """A signed bundle with owners, which only rules read."""
    return signed({**good_files(), ".manifest": MANIFEST, "owners/data.json": canonical_json(OWNERS)}, **options)


def question(raw: bytes | None = None, **trusting: Any) -> Question:
    """What the gate would ask about it."""
    return Question(raw if raw is not None else archive(), trust(**trusting), NOW, 3, None)


def verified_here(asked: Question) -> TrustedBundle:
    """The same check in this process."""
    wanted: TrustPolicy = asked.trust
    return verify_bundle(asked.archive, wanted, now=asked.at, highest_sequence=asked.highest_sequence)


def script(text: str) -> tuple[str, ...]:
    """A child that runs ``text`` instead of checking; ``frame`` and ``say`` help it to answer."""
    helpers = (
        "import os, sys, time\n"
        "from pdp.bundle_frames import *\n"
        "out = sys.stdout.buffer\n"
        "def say(pieces):\n"
        "    out.write(b''.join(pieces)); out.flush()\n"
    )
    return (sys.executable, "-P", "-c", helpers + text)
