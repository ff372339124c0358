"""Which instances an answer names to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bundles.errors import BundleRefused
from gateway.connectors.rewrite import RewriteTarget
from gateway.connectors.rewriters import Candidate, Rewriters
from gateway.edge.identity import Subject
from tests.gateway.connectors.test_rewrite import action, manifest
from tests.gateway.flow.playbook import SUBJECT

OWN = RewriteTarget("svc", "https://up.example", "https://gate.example/c/svc")
FILES = "https://files.example"
DESK = manifest(action("a.x", "GET", "/a"), rewrite={"json": ["$..url"]})


def _of_tenant(tenant: str) -> Candidate:
    def admits(subject: Subject) -> bool:
        return subject.tenant == tenant

    return RewriteTarget(f"files-{tenant}", FILES, f"https://gate.example/c/files-{tenant}"), admits


SHARED = Rewriters(DESK, OWN, [_of_tenant("acme"), _of_tenant("zeta")])


@pytest.mark.parametrize("tenant", ["acme", "zeta", "acme"])
def test_url_of_one_address_is_the_callers_own_when_tenants_have_an_instance_each(tenant: str) -> None:
    of_tenant = SHARED.of(replace(SUBJECT, tenant=tenant))
    assert of_tenant.url(f"{FILES}/1") == f"https://gate.example/c/files-{tenant}/1"
    assert of_tenant.url("https://up.example/1") == "https://gate.example/c/svc/1"


def test_url_stays_as_it_is_when_its_instance_is_for_others_only() -> None:
    assert SHARED.of(replace(SUBJECT, tenant="rival")).url(f"{FILES}/1") == f"{FILES}/1"


def test_rewriter_is_made_once_when_callers_may_use_the_same_instances() -> None:
    assert SHARED.of(SUBJECT) is SHARED.of(replace(SUBJECT, id="another", workspace="dev"))


def test_rewriters_are_refused_when_the_manifests_rules_are_none() -> None:
    with pytest.raises(BundleRefused):
        Rewriters(manifest(action("a.x", "GET", "/a"), rewrite={"json": ["no path"]}), OWN, [])
