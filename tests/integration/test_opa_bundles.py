"""Bundles cross between real OPA and us in both directions, and a spoilt one is refused by both or by a named rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy, verify_bundle
from pdp.errors import PolicyRefused
from pdp.opa_server import OpaServerEngine
from pdp.prepared import PolicyPlane
from pdp.wasm.host import WasmEngine
from tests.integration.mutations import OPA_RULES, RULES
from tests.integration.mutations_of_archives import MUTATIONS
from tests.integration.opa_matrix import Row, page, rows_of
from tests.integration.opa_process import OpaProcess
from tests.integration.opa_verdicts import (
    SEQUENCE,
    Origin,
    opa_bundle,
    opa_verdict,
    our_bundle,
    our_verdict,
    resigned,
)
from tests.integration.signed_drafts import draft_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"{mutation.layer}: {mutation.name}" for mutation in MUTATIONS]


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory, opa_path: Path) -> Origin:
    """A bundle that `tidegate bundle build` made."""
    return our_bundle(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory, opa_path: Path) -> Origin:
    """A bundle that `opa build` made and signed."""
    return opa_bundle(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="session")
def rows(ours: Origin, theirs: Origin) -> list[Row]:
    """The whole matrix."""
    return rows_of(ours) + rows_of(theirs)


@pytest.fixture(scope="session")
def by_name(rows: list[Row]) -> Mapping[str, list[Row]]:
    """The rows of each mutation."""
    found: dict[str, list[Row]] = {name: [] for name in NAMES}
    for row in rows:
        found[f"{row.mutation.layer}: {row.mutation.name}"].append(row)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_both_readers_judge_alike_or_by_a_named_rule_when_this_is_spoilt(
    name: str, by_name: Mapping[str, list[Row]]
) -> None:
    assert by_name[name]
    for row in by_name[name]:
        rule = row.mutation.rule
        expected = "same" if rule is None else "OPA is stricter" if rule in OPA_RULES else "we are stricter"
        # A rule is named for the bundle that shows it; the other origin's may be refused by both.
        assert row.relation in (expected, "same"), (row.origin, row.by_us, row.by_opa)
    if name == "members: nothing":
        assert all(row.by_us.loads and row.by_opa.loads for row in by_name[name])


def test_every_rule_shows_in_the_matrix_when_it_is_named(rows: list[Row]) -> None:
    shown = {row.mutation.rule for row in rows if row.relation != "same"}
    assert shown == {*RULES, *OPA_RULES}


def test_nothing_spoilt_behind_the_signature_loads_here_unless_it_says_the_same(rows: list[Row]) -> None:
    loaded = {row.mutation.name for row in rows if row.by_us.loads and row.mutation.layer == "members"}
    assert loaded == {
        "nothing",
        "the manifest has other white space",
        "a data file has other white space",
        "a data file spells a letter as an escape",
        "a data file's members are in another order",
    }


def test_the_page_is_current_when_the_matrix_is_run_again(rows: list[Row]) -> None:
    committed = (ROOT / "docs" / "opa-interop.md").read_text(encoding="utf-8")
    assert page(rows) == committed, "python -m tests.integration.opa_matrix --write docs/opa-interop.md"


def _verified(origin: Origin) -> TrustedBundle:
    key = TrustedKey("bundle", "ES256", "write", origin.public)
    issued_at = draft_of(origin.raw, origin.key, origin.public).payload["iat"]
    return verify_bundle(origin.raw, TrustPolicy("main", "tidegate", (key,)), now=issued_at, highest_sequence=SEQUENCE)


async def test_our_bundle_answers_its_probes_on_opa_run_when_verification_is_on(ours: Origin, tmp_path: Path) -> None:
    bundle = _verified(ours)
    assert bundle.probes
    with OpaProcess.start(tmp_path, ours.raw, ours.public) as server:
        plane = PolicyPlane(OpaServerEngine(server.socket_url, deadline_seconds=10))
        await plane.load(bundle)  # asks every probe
        assert plane.current() is not None
        await plane.close()


async def test_opas_bundle_loads_here_on_the_opa_engine_when_its_claims_are_ours(
    theirs: Origin, tmp_path: Path
) -> None:
    bundle = _verified(theirs)
    with OpaProcess.start(tmp_path, theirs.raw, theirs.public) as server:
        plane = PolicyPlane(OpaServerEngine(server.url, deadline_seconds=10))
        await plane.load(bundle)
        assert (await plane.decide_document({"action": "read"})).decision.effect.value == "ALLOW"
        assert (await plane.decide_document({"action": "write"})).decision.effect.value == "DENY"
        await plane.close()


def test_opas_bundle_is_refused_by_the_embedded_engine_when_it_has_no_profile(theirs: Origin) -> None:
    with pytest.raises(PolicyRefused) as refused:
        WasmEngine().prepare(_verified(theirs))
    assert refused.value.code == "policy_profile_missing"


def test_a_bundle_verifies_on_both_sides_when_bundle_sign_signed_it_anew(ours: Origin, tmp_path: Path) -> None:
    again = resigned(tmp_path, ours)
    assert our_verdict(again.raw, again).loads
    assert opa_verdict(again.raw, again).loads
    assert not our_verdict(again.raw, ours).loads
    assert not opa_verdict(again.raw, ours).loads


SPOILT = [
    "members: one bit of a policy is flipped",
    "members: an unlisted policy is added",
    "members: the manifest is missing",
    "claims: the scope is another one",
    "token: another key of the same kind signed",
    "token: the header says alg none and nothing is signed",
    "token: the header says HS256, signed with the public key as the secret",
    "signature file: it holds a second signer's signature",
    "archive: half of it is missing",
]


@pytest.mark.parametrize("name", SPOILT)
def test_opa_run_refuses_to_serve_when(name: str, ours: Origin, tmp_path: Path) -> None:
    mutation = MUTATIONS[NAMES.index(name)]
    draft = draft_of(ours.raw, ours.key, ours.public)
    mutation.change(draft)
    said = OpaProcess.refusal(tmp_path, draft.pack(), ours.public)
    assert "error" in said.lower()
