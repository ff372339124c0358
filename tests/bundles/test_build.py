"""Building from a source directory with the real OPA: what stops a build, and that it is deterministic."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest

import rego
from bundles.archive import read_archive, write_archive
from bundles.build import (
    SigningOptions,
    assemble_starter,
    build_bundle,
    check_rebuild,
    inspect_bundle,
    shipped_parts,
    sign_archive,
)
from bundles.canonical import sha256_hex
from bundles.compiler import Opa, find_opa
from bundles.content import read_content
from bundles.errors import BundleError, BundleMisuse, BundleRefused, BundleUnavailable
from bundles.keys import public_pem
from bundles.source import read_library, read_source
from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy, verify_bundle
from pdp.agreement import agree
from pdp.input_document import encode_document
from pdp.wasm.host import WasmEngine
from tests.bundles.parts import NOW, good_files, signing_key, write_source


@pytest.fixture(autouse=True)
def use_pinned_opa(opa_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_OPA", str(opa_path))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "bundle")


def _trusted(raw: bytes) -> TrustedBundle:
    key = TrustedKey("bundle", "ES256", "write", public_pem(signing_key()))
    return verify_bundle(raw, TrustPolicy("main", "tidegate", (key,)), now=NOW, highest_sequence=0)


def _agreed(files: Any, data: Any, wasm: Any, inputs: Any) -> list[object]:
    return []


def test_bundle_is_built_with_probes_profile_and_module(source: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    out = tmp_path / "bundle.tar.gz"
    built = build_bundle(source, key=signing_key(), out=out, agreement=_agreed, progress=steps.append)
    trusted = _trusted(out.read_bytes())
    assert steps == ["read", "check", "lint", "test", "compile", "decide", "agree", "sign"]
    assert (built.sequence, trusted.sequence, trusted.profile) == (1, 1, "1")
    assert trusted.entrypoints == ("tidegate/decision",) and trusted.revision == built.revision
    assert trusted.wasm is not None and trusted.wasm[:4] == b"\0asm"
    assert "case-shop-stranger" in [probe.name for probe in trusted.probes] and len(trusted.probes) > 50
    assert not any(name.endswith("_test.rego") for name in trusted.rego)
    action = trusted.data["connectors"]["shop"]["actions"][0]  # type: ignore[index, call-overload]
    assert action["name"] == "shop.order.read" and action["arguments"]["schema"]["required"] == ["id"]  # type: ignore[index, call-overload]
    check_rebuild(trusted, opa=find_opa())


ASKING_THE_HOST = """
deny contains {"code": "inner", "message": message} if {
	input.args.id in {"x 10.1.2.3", "elsewhere"} # what a policy mentions is tried
	some word in regex.split(`\\s+`, input.args.id)
	net.cidr_is_valid($"{word}/32")
	count(net.cidr_contains_matches(["10.0.0.0/8"], word)) > 0
	local := [time.parse_rfc3339_ns(input.context.time), "Europe/Berlin"]
	message := sprintf("%s on %s at %d", [word, time.weekday(local), time.clock(local)[0]])
}
"""


def test_both_engines_decide_alike_when_a_policy_asks_the_host(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _append(POLICY, ASKING_THE_HOST)(source)
    other_zones = tmp_path / "zones"  # a machine on which Berlin lies in Japan
    (other_zones / "Europe").mkdir(parents=True)
    shutil.copy(str(files("tzdata") / "zoneinfo" / "Asia" / "Tokyo"), other_zones / "Europe" / "Berlin")
    monkeypatch.setenv("ZONEINFO", str(other_zones))
    agreed: list[int] = []

    def agreement(rego_files: Any, data: Any, wasm: Any, inputs: Any) -> list[object]:
        agreed.append(len(inputs))
        return list(agree(rego_files, data, wasm, inputs, find_opa()))

    out = tmp_path / "bundle.tar.gz"
    build_bundle(source, key=signing_key(), out=out, agreement=agreement)
    assert agreed and agreed[0] > 50
    policy = WasmEngine().prepare(_trusted(out.read_bytes()))
    question = {"context": {"time": "2026-11-22T03:00:00Z"}, "args": {"id": "x 10.1.2.3"}}
    decision = orjson.loads(policy.decide(encode_document(question)))
    policy.close()
    assert [reason["message"] for reason in decision["reasons"]] == ["10.1.2.3 on Sunday at 4"]


def test_build_gives_the_same_content_when_repeated_elsewhere(source: Path, tmp_path: Path) -> None:
    again = shutil.copytree(source, tmp_path / "elsewhere" / "deep")
    build_bundle(source, key=signing_key(), out=tmp_path / "a" / "b.tar.gz")
    build_bundle(again, key=signing_key(), out=tmp_path / "c" / "b.tar.gz")
    first, second = (read_archive((tmp_path / folder / "b.tar.gz").read_bytes()) for folder in "ac")
    first.pop(".signatures.json")
    second.pop(".signatures.json")
    assert first == second


def test_sequence_rises_when_built_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    expiring = SigningOptions(issued_at=NOW, expires_at=NOW + 1)
    assert build_bundle(source, key=signing_key(), out=out, options=expiring).sequence == 1
    assert build_bundle(source, key=signing_key(), out=out).sequence == 2
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "sequence").write_text('{"main": 40}')
    assert build_bundle(source, key=signing_key(), out=out).sequence == 41
    assert build_bundle(source, key=signing_key(), out=out, options=SigningOptions(sequence=90)).sequence == 90


def _append(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("a") as file:
            file.write(text)

    return change


def _put(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return change


def _link(folder: Path) -> None:
    (folder / "policies" / "shop" / "link.rego").symlink_to("/etc/passwd")


POLICY = "policies/shop/shop.rego"
CASE = "policies/shop/cases/stranger.json"
YAML = "connectors/shop/data.yaml"

STOPPED = {
    "Rego does not compile": (_append(POLICY, "deny contains if\n"), "rego_invalid"),
    "Rego names nothing known": (_append(POLICY, "deny contains 1 if nobody\n"), "rego_invalid"),
    "Rego is not strict": (_append(POLICY, "deny contains 1 if { x := 1 }\n"), "rego_invalid"),
    "Rego uses a forbidden builtin": (_append(POLICY, 'deny contains 1 if http.send({"a": 1})\n'), "rego_invalid"),
    "Rego uses a builtin that differs": (_append(POLICY, "deny contains 1 if json.is_valid(input.x)\n"), "rego_invalid"),
    "Rego is recursive": (_append(POLICY, "a if b\n\nb if a\n"), "rego_invalid"),
    "Rego leaves the profile": (
        _append(POLICY, 'deny contains 1 if data.chains["one-approver"].steps[input.i]\n'),
        "profile_violated",
    ),
    "data has numeric keys": (_put("limits/data.json", '{"2": 1}'), "profile_violated"),
    "a test fails": (_append("policies/shop/shop_test.rego", "\ntest_wrong if false\n"), "tests_failed"),
    "a case is decided otherwise": (
        lambda folder: (folder / CASE).write_text((folder / CASE).read_text().replace("DENY", "ALLOW")),
        "case_failed",
    ),
    "a case has no decision": (_put(CASE, '{"input": {}}'), "bundle_json_invalid"),
    "a policy stands in a foreign package": (_put("policies/a/a.rego", "package tidegate\n\nx := 1\n"), "profile_violated"),
    "a policy stands in a nested package": (
        _put("policies/shop/strict/strict.rego", "package policies.shop.strict\n\ndeny contains 1 if input.action\n"),
        "profile_violated",
    ),
    "a deny stands among the tests": (
        _append("policies/shop/shop_test.rego", "\ndeny contains 1 if input.action\n"),
        "profile_violated",
    ),
    "the library is in the source": (_put("lib/tidegate/decision.rego", "package tidegate\n"), "source_invalid"),
    "a file has no place": (_put("policies/shop/run.sh", "true"), "source_invalid"),
    "data stands among policies": (_put("policies/shop/data.json", "{}"), "source_invalid"),
    "data grants what no policy does": (
        _put("data.json", '{"policies": {"shop": {"allow": ["everybody"]}}}'),
        "bundle_data_conflict",
    ),
    "data has a YAML twin": (_put("chains/data.yaml", "a: b"), "source_invalid"),
    "data has duplicate keys": (_put("limits/data.json", '{"a":1,"a":2}'), "bundle_json_invalid"),
    "a file is a link": (_link, "source_invalid"),
    "YAML has duplicate keys": (_put("limits/data.yaml", "a: 1\na: 2\n"), "yaml_invalid"),
    "YAML has an anchor": (_put("limits/data.yaml", "a: &x [1]\nb: *x\n"), "yaml_invalid"),
    "YAML has a tag": (_put("limits/data.yaml", "a: !!python/name:os.system x\n"), "yaml_invalid"),
    "YAML has a date": (_put("limits/data.yaml", "a: 2026-01-01\n"), "yaml_invalid"),
    "YAML has a number for a key": (_put("limits/data.yaml", "1: a\n"), "yaml_invalid"),
    "YAML is cut": (_put("limits/data.yaml", "a: [\n"), "yaml_invalid"),
    "YAML is no UTF-8": (lambda folder: (folder / "chains/data.yaml").write_bytes(b"a: \xff"), "source_invalid"),
    "YAML is too large": (_put("limits/data.yaml", "a: " + "x" * (1 << 20)), "yaml_invalid"),
    "a manifest names another connector": (_put("connectors/other/data.yaml", '{"connector": "shop"}'), "manifest_invalid"),
    "a manifest names a schema that is missing": (
        lambda folder: (folder / "connectors/shop/schemas/order.json").unlink(),
        "manifest_invalid",
    ),
    "a manifest names a schema elsewhere": (
        lambda folder: (folder / YAML).write_text((folder / YAML).read_text().replace("order.json", "../x.json")),
        "manifest_invalid",
    ),
    "a manifest is not one": (_put(YAML, '{"connector": "shop", "actions": 1}'), "manifest_invalid"),
    "a manifest's action is none": (_put(YAML, '{"connector": "shop", "actions": [1]}'), "manifest_invalid"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code"), STOPPED.values(), ids=STOPPED.keys())
def test_build_stops_and_writes_nothing_when(
    change: Callable[[Path], object], code: str, source: Path, tmp_path: Path
) -> None:
    change(source)
    with pytest.raises(BundleError) as refused:
        build_bundle(source, key=signing_key(), out=tmp_path / "b.tar.gz")
    assert refused.value.code == code, refused.value
    assert not (tmp_path / "b.tar.gz").exists()


def test_build_stops_when_the_engines_disagree(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused) as refused:
        build_bundle(source, key=signing_key(), out=tmp_path / "b", agreement=lambda *_: ["input 3 differs"])
    assert refused.value.code == "engines_disagree" and "input 3 differs" in refused.value.detail


def test_build_warns_when_a_policy_has_no_test(source: Path, tmp_path: Path) -> None:
    (source / "policies/shop/shop_test.rego").unlink()
    built = build_bundle(source, key=signing_key(), out=tmp_path / "b.tar.gz")
    assert "policies/shop/shop.rego" in [finding.file for finding in built.policy.warnings]


def test_build_says_how_to_get_opa_when_there_is_none(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_OPA", str(tmp_path / "nowhere"))
    with pytest.raises(BundleUnavailable) as missing:
        build_bundle(source, key=signing_key(), out=tmp_path / "b.tar.gz")
    assert missing.value.code == "opa_missing" and "make opa" in missing.value.detail


def test_build_names_the_version_when_opa_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "opa"
    other.write_text("#!/bin/sh\necho Version: 0.1.0\n")
    other.chmod(0o755)
    monkeypatch.setenv("TIDEGATE_OPA", str(other))
    with pytest.raises(BundleUnavailable, match=r"version 0\.1\.0"):
        find_opa()


def test_build_gives_up_when_opa_never_ends(tmp_path: Path) -> None:
    slow = tmp_path / "opa"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(BundleUnavailable) as late:
        Opa(slow, deadline_seconds=0.05).version()
    assert late.value.code == "opa_too_slow"


def test_build_is_unavailable_when_opa_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(BundleUnavailable):
        Opa(tmp_path / "nowhere").check({})


def test_compiling_is_refused_when_opa_writes_no_module(tmp_path: Path) -> None:
    (tmp_path / "empty.tar.gz").write_bytes(write_archive({"data.json": b"{}"}))
    other = tmp_path / "opa"
    other.write_text(f'#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\ncp {tmp_path}/empty.tar.gz "$2"\n')
    other.chmod(0o755)
    with pytest.raises(BundleRefused, match="no module") as refused:
        Opa(other).build_wasm({"lib/tidegate/d.rego": b"package tidegate\n"}, entrypoints=["tidegate/decision"])
    assert refused.value.code == "rego_invalid"


def test_library_is_read_with_its_tests_apart() -> None:
    library, tests = read_library()
    assert "lib/tidegate/decision.rego" in library and "lib/tidegate/decision_test.rego" in tests
    assert not library.keys() & tests.keys()


def test_starter_is_unavailable_when_nothing_ships(tmp_path: Path) -> None:
    with pytest.raises(BundleUnavailable):
        shipped_parts(tmp_path)


def test_sequence_starts_again_when_the_old_bundle_is_anothers(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    build_bundle(source, key=signing_key("theirs"), out=out, options=SigningOptions(sequence=9))
    assert build_bundle(source, key=signing_key(), out=out).sequence == 1


def test_rebuild_is_refused_when_there_is_no_module(opa_path: Path) -> None:
    files = {name: content for name, content in good_files().items() if name != "policy.wasm"}
    with pytest.raises(BundleRefused) as refused:
        check_rebuild(read_content(files), opa=Opa(opa_path))
    assert refused.value.code == "rebuild_differs"


def test_source_is_refused_when_it_has_one_file_too_many(source: Path) -> None:
    count = sum(path.is_file() for path in source.rglob("*"))
    assert read_source(source, files_max_count=count).rego
    with pytest.raises(BundleRefused) as refused:
        read_source(source, files_max_count=count - 1)
    assert refused.value.code == "bundle_too_large"


def test_manifest_is_kept_when_its_names_are_full_and_its_schema_is_inside(source: Path) -> None:
    before = read_source(source).data_files["connectors/shop/data.json"]
    text = (source / YAML).read_text().replace('"order.read"', '"shop.order.read"')
    inlined = text.replace('"order.json"', (source / "connectors/shop/schemas/order.json").read_text())
    (source / YAML).write_text(inlined)
    assert read_source(source).data_files["connectors/shop/data.json"] == before


def test_hidden_files_are_left_out_of_a_source(source: Path) -> None:
    before = read_source(source)
    _put("policies/shop/.editor.rego", "x")(source)
    _put("README.md", "words")(source)
    assert read_source(source) == before


def test_source_is_unavailable_when_it_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(BundleUnavailable):
        read_source(tmp_path / "nowhere")


def test_starter_is_assembled_without_opa_when_it_is_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_OPA", str(tmp_path / "nowhere"))
    wasm, probes = shipped_parts()
    out = tmp_path / "b.tar.gz"
    built = assemble_starter(rego.root() / "starter", wasm, probes, signing_key(), out)
    trusted = _trusted(out.read_bytes())
    assert trusted.wasm == wasm and len(trusted.probes) == len(probes) and built.sequence == 1


def test_starter_is_refused_when_its_rego_was_edited(tmp_path: Path) -> None:
    wasm, probes = shipped_parts()
    copied = shutil.copytree(rego.root() / "starter", tmp_path / "bundle")
    _append("policies/slack/slack.rego", "\nallow contains 1\n")(copied)
    with pytest.raises(BundleRefused) as refused:
        assemble_starter(copied, wasm, probes, signing_key(), tmp_path / "b.tar.gz")
    assert refused.value.code == "starter_changed"


def test_starter_is_refused_when_its_module_is_another(tmp_path: Path) -> None:
    wasm, probes = shipped_parts()
    with pytest.raises(BundleRefused) as refused:
        assemble_starter(rego.root() / "starter", wasm + b"\0", probes, signing_key(), tmp_path / "b.tar.gz")
    assert refused.value.code == "starter_changed"


def _exchanged(raw: bytes) -> bytes:
    """A module that somebody else made, in place of the one OPA compiled."""
    files = read_archive(raw)
    return write_archive({**files, "policy.wasm": b"\0asm\1\0\0\0"})


def test_signing_is_refused_when_the_module_is_not_the_regos(source: Path, tmp_path: Path, opa_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    build_bundle(source, key=signing_key(), out=out)
    options = SigningOptions(sequence=5)
    again = sign_archive(out.read_bytes(), signing_key(), options, opa=Opa(opa_path))
    assert _trusted(again).sequence == 5
    with pytest.raises(BundleRefused) as refused:
        sign_archive(_exchanged(out.read_bytes()), signing_key(), options, opa=Opa(opa_path))
    assert refused.value.code == "rebuild_differs"
    with pytest.raises(BundleMisuse):
        sign_archive(out.read_bytes(), signing_key(), SigningOptions(sequence=0), opa=Opa(opa_path))


def test_inspection_says_what_is_inside_and_that_nothing_was_verified(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    build_bundle(source, key=signing_key(), out=out)
    said = inspect_bundle(_exchanged(out.read_bytes()))
    assert said["verified"] is False and said["signed"] is True and said["actions"] == ["shop.order.read"]
    assert said["digest"] == f"sha256:{sha256_hex(_exchanged(out.read_bytes()))}"


def test_opa_answers_each_input_alone_when_one_of_them_fails(opa_path: Path) -> None:
    policy = b'package tidegate\n\ndecision := "a" if input.x == 1\n\ndecision := "b" if input.y == 1\n'
    inputs: list[dict[str, Any]] = [{"x": 1}, {"z": 1}, {"x": 1, "y": 1}, {"y": 1}]
    answers = Opa(opa_path).eval({"lib/tidegate/d.rego": policy}, {}, inputs)
    assert [(answer.state, answer.value) for answer in answers] == [
        ("defined", "a"), ("undefined", None), ("failed", None), ("defined", "b"),
    ]  # fmt: skip


def test_shipped_digests_name_the_shipped_module() -> None:
    wasm, _ = shipped_parts()
    digests = json.loads((rego.root() / "built" / "digests.json").read_text())
    assert digests["policy.wasm"] == sha256_hex(wasm)
