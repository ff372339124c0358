"""``tidegate policy`` as a person types it: offline, against a gate, and over the store of one."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.candidates import comparing_gate
from tests.e2e.harness import GateProcess, StandIns, edit_config, free_port, tidegate
from tests.integration.test_simulate import DELETE, await_items, denied_call, whole
from tests.integration.test_v1 import INCIDENTS, send

TYPED = ("--action", "servicenow.incident.delete", "--arg", "sys_id=01000000000000000000000000000001")


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate that keeps inputs and has a shadow."""
    with comparing_gate(tmp_path_factory.mktemp("policy") / "gate", stand_ins) as running:
        yield running


def policy(*arguments: str, token: str = "", gate: str = "") -> tuple[int, list[Any], str]:
    """Exit status, every line of JSON, and what went to standard error."""
    done = tidegate("policy", *arguments, "--json", token=token, gate=gate)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def written(path: Path, *documents: Any) -> str:
    path.write_text("\n".join(json.dumps(document) for document in documents), encoding="utf-8")
    return str(path)


def test_simulate_answers_offline_from_a_file(tmp_path: Path, starter_bundle: Path) -> None:
    question = written(tmp_path / "q.json", whole(roles=["triage"]))
    status, (answer,), _ = policy("simulate", "--bundle", str(starter_bundle), "--input", question)
    assert (status, answer["decision"]["effect"], answer["rules"][0]["code"]) == (0, "DENY", "no_deletes")
    assert (answer["bundle"]["verified"], answer["bundle"]["unverified_because"]) == (False, "no_configuration")


def test_simulate_answers_once_a_line_when_the_file_has_lines(tmp_path: Path, starter_bundle: Path) -> None:
    questions = written(tmp_path / "q.jsonl", whole(roles=["triage"]), whole(roles=["guest"]))
    (tmp_path / "q.jsonl").write_text((tmp_path / "q.jsonl").read_text() + "\n\n")
    status, answers, _ = policy("simulate", "--bundle", str(starter_bundle), "--input", questions)
    assert (status, len(answers)) == (0, 2)


def test_simulate_verifies_when_a_configuration_is_named(starter_directory: Path, starter_bundle: Path) -> None:
    named = ("--config", str(starter_directory / "tidegate.yaml"))
    status, (answer,), _ = policy("simulate", "--bundle", str(starter_bundle), *named, *TYPED, "--role", "triage")
    assert (status, answer["bundle"]["verified"], answer["decision"]["effect"]) == (0, True, "DENY")


def test_simulate_says_so_when_another_key_signed(
    tmp_path: Path, starter_directory: Path, starter_bundle: Path
) -> None:
    directory = tmp_path / "gate"
    shutil.copytree(starter_directory, directory)
    assert tidegate("init", str(tmp_path / "other")).returncode == 0
    shutil.copy(tmp_path / "other/keys/bundle.pub.pem", directory / "keys/bundle.pub.pem")
    named = ("--config", str(directory / "tidegate.yaml"))
    status, (answer,), _ = policy("simulate", "--bundle", str(starter_bundle), *named, *TYPED)
    assert (status, answer["bundle"]["verified"]) == (0, False)
    assert answer["bundle"]["unverified_because"] == "bundle_signature_invalid"


def test_simulate_asks_the_gate_when_no_bundle_is_named(gate: GateProcess) -> None:
    auditor = gate.token("aud", "auditor")
    typed = ("--instance", "servicenow", *TYPED, "--subject", "bot", "--role", "triage")
    status, (answer,), _ = policy("simulate", *typed, token=auditor, gate=gate.url)
    assert (status, answer["decision"]["effect"], answer["bundle"]["sequence"]) == (0, "DENY", 1)
    call = denied_call(gate, "cli")
    status, (answer,), _ = policy("simulate", "--call", call, token=auditor, gate=gate.url)
    assert (status, answer["recorded"]["now"]) == (0, "same")


def test_simulate_reads_typed_arguments_as_a_call_does_when_they_are_numbers(
    gate: GateProcess, starter_bundle: Path
) -> None:
    typed = ("--action", "servicenow.incident.list", "--arg", "sysparm_limit=1", "--role", "triage")
    status, (answer,), _ = policy("simulate", "--bundle", str(starter_bundle), *typed)
    assert (status, answer["decision"]["effect"]) == (0, "ALLOW")
    asked = ("simulate", "--instance", "servicenow", *typed, "--subject", "bot")
    status, (answer,), _ = policy(*asked, token=gate.token("aud", "auditor"), gate=gate.url)
    assert (status, answer["decision"]["effect"]) == (0, "ALLOW")
    asked = tuple(part.replace("limit=1", "limit=x") for part in asked)
    status, (answer,), _ = policy(*asked, token=gate.token("aud", "auditor"), gate=gate.url)
    assert (status, answer["error"]["code"]) == (1, "arguments_invalid")


def test_simulate_speaks_in_words_without_json(starter_bundle: Path) -> None:
    done = tidegate("policy", "simulate", "--bundle", str(starter_bundle), *TYPED, "--role", "triage")
    assert done.returncode == 0 and "DENY" in done.stdout and "no_deletes" in done.stdout
    assert "not verified" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        pytest.param((), 2, "usage", id="nothing to ask"),
        pytest.param(("--input", "q.json", "--call", "c"), 2, "usage", id="two questions"),
        pytest.param(("--bundle", "B", "--call", "c"), 2, "usage", id="a call offline"),
        pytest.param(("--bundle", "/nosuch", *TYPED), 3, "bundle_missing", id="no bundle"),
        pytest.param(("--bundle", "B", "--input", "/nosuch.json"), 3, "input_missing", id="no input"),
        pytest.param(("--bundle", "Q", *TYPED), 1, "bundle_archive_invalid", id="no archive"),
        pytest.param(("--bundle", "B", "--input", "Q"), 1, "malformed_request", id="no question"),
        pytest.param(("--bundle", "B", "--action", "nosuch.x"), 1, "unclassified", id="no connector"),
        pytest.param(("--bundle", "B", "--action", "servicenow.x"), 1, "unclassified", id="no action"),
        pytest.param(("--bundle", "B", *TYPED, "--arg", "x=1"), 1, "arguments_invalid", id="an undeclared argument"),
        pytest.param(("--gate", "http://127.0.0.1:9", *TYPED), 3, "gate_unreachable", id="no gate"),
    ],
)
def test_simulate_fails_when_it_is_given(
    tmp_path: Path, starter_bundle: Path, arguments: tuple[str, ...], status: int, code: str
) -> None:
    places = {"B": str(starter_bundle), "Q": written(tmp_path / "bad.json", {"v": 1})}
    found, answers, _ = policy("simulate", *(places.get(each, each) for each in arguments))
    assert (found, answers[-1]["error"]["code"]) == (status, code)


def test_explain_names_the_first_failing_condition_and_its_line(tmp_path: Path, starter_bundle: Path) -> None:
    question = whole(roles=["guest"])
    question["action"] = {"name": "servicenow.incident.update", "properties": {"mode": "write"}}
    asked = ("explain", "--bundle", str(starter_bundle), "--input", written(tmp_path / "q.json", question))
    status, (answer,), _ = policy(*asked)
    assert (status, answer["opa"]["found"], answer["opa"]["agrees"]) == (0, True, True)
    nearly = next(rule for rule in answer["nearly"] if rule["rule"] == "policies.servicenow.allow")
    assert nearly["failing"]["text"] == "tidegate.has_any_role(writers)"
    assert nearly["failing"]["file"] == "policies/servicenow/servicenow.rego" and nearly["failing"]["line"] > 1
    words = tidegate("policy", *asked).stdout
    assert f"{nearly['failing']['file']}:{nearly['failing']['line']}: {nearly['failing']['text']}" in words


def test_explain_finds_a_recorded_call_in_the_store(gate: GateProcess) -> None:
    call = denied_call(gate, "explained")
    status, (answer,), _ = policy("explain", call, "--config", str(gate.config))
    assert (status, answer["decision"]["effect"], answer["recorded"]["now"]) == (0, "DENY", "same")
    assert answer["bundle"]["verified"] is True
    held = {rule["rule"] for rule in answer["held"]}
    assert "policies.servicenow.deny" in held


def test_explain_asks_another_bundle_about_a_recorded_call(gate: GateProcess) -> None:
    call = denied_call(gate, "explained")
    candidate = str(gate.directory / "candidate.tar.gz")
    status, (answer,), _ = policy("explain", call, "--config", str(gate.config), "--bundle", candidate)
    assert (status, answer["decision"]["effect"], answer["recorded"]["now"]) == (0, "ALLOW", "loosening")


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        pytest.param((), 2, "usage", id="nothing"),
        pytest.param(("c", "--input", "q.json"), 2, "usage", id="a call and a file"),
        pytest.param(("--input", "q.json"), 2, "usage", id="no bundle"),
        pytest.param(("c",), 2, "config_missing", id="a call without a store"),
        pytest.param(("nosuch", "--config", "C"), 1, "not_found", id="no such call"),
        pytest.param(("c", "--config", "/nosuch.yaml"), 3, "config_missing", id="no configuration"),
    ],
)
def test_explain_fails_when_it_is_given(gate: GateProcess, arguments: tuple[str, ...], status: int, code: str) -> None:
    found, answers, _ = policy("explain", *(str(gate.config) if each == "C" else each for each in arguments))
    assert (found, answers[-1]["error"]["code"]) == (status, code)


def test_replay_shows_looser_calls_apart_from_stricter_ones(gate: GateProcess) -> None:
    tenant = "replayed"
    deletes = [denied_call(gate, "replayed", tenant=tenant) for _ in range(2)]
    assert send(gate, "GET", INCIDENTS, gate.token("replayed", "triage", tenant=tenant)).status == 200
    candidate = str(gate.directory / "candidate.tar.gz")
    asked = ("replay", "--last", "10", "--bundle", candidate, "--config", str(gate.config), "--tenant", tenant)
    status, (report,), _ = policy(*asked)
    assert (status, report["compared"], report["unreadable"]) == (0, 3, 0)
    assert {item["call"] for item in report["loosening"]} == set(deletes)
    assert [item["after"]["reasons"][0]["code"] for item in report["tightening"]] == ["lists_closed"]
    assert {row["rule"] for row in report["by_rule"]} >= {"policies.servicenow.deny", "policies.servicenow.allow"}
    assert policy(*asked, "--strict")[0] == 1
    words = tidegate("policy", *asked).stdout
    assert "looser" in words and "DENY → ALLOW" in words and deletes[0] in words


def test_replay_finds_nothing_when_the_same_bundle_decides(gate: GateProcess) -> None:
    denied_call(gate, "same", tenant="same")
    asked = ("replay", "--bundle", str(gate.directory / "bundle.tar.gz"), "--config", str(gate.config), "--strict")
    status, (report,), _ = policy(*asked)
    assert status == 0 and report["compared"] == report["counts"]["same"] > 0


def test_replay_is_made_by_the_gate_over_the_own_tenant(gate: GateProcess) -> None:
    call = denied_call(gate, "remote", tenant="remote")
    auditor = gate.token("aud", "auditor", tenant="remote")
    candidate = str(gate.directory / "candidate.tar.gz")
    for more in (("--bundle", candidate), ()):
        status, (report,), _ = policy("replay", *more, token=auditor, gate=gate.url)
        assert (status, report["compared"]) == (0, 1), report
        assert [item["call"] for item in report["loosening"]] == [call]
        assert report["bundle"]["sequence"] == 90


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"last": 0}, 422, "arguments_invalid", id="none"),
        pytest.param({"last": 10_001}, 422, "arguments_invalid", id="too many"),
        pytest.param({"last": True}, 422, "arguments_invalid", id="true"),
        pytest.param({"last": "5"}, 422, "arguments_invalid", id="text"),
        pytest.param({"bundle": "***"}, 422, "arguments_invalid", id="no base64"),
        pytest.param({"bundle": ""}, 422, "arguments_invalid", id="nothing"),
        pytest.param({"bundle": 5}, 422, "arguments_invalid", id="a number"),
        pytest.param({"bundle": base64.b64encode(b"x" * 99).decode()}, 422, "arguments_invalid", id="no archive"),
        pytest.param({"tenant": "evil"}, 422, "arguments_invalid", id="an unknown member"),
        pytest.param(b"[]", 400, "malformed_request", id="a list"),
    ],
)
def test_replay_is_refused_when_it_gives(gate: GateProcess, body: Any, status: int, code: str) -> None:
    answered = send(gate, "POST", "/v1/replay", gate.token("aud", "auditor"), body)
    assert (answered.status, answered.code) == (status, code)


@pytest.mark.parametrize("roles", [("operator",), ("triage",), ("approver",), ()])
def test_replay_is_denied_when_no_role_grants_it(gate: GateProcess, roles: tuple[str, ...]) -> None:
    assert send(gate, "POST", "/v1/replay", gate.token("asker", *roles), {}).code == "denied"
    assert send(gate, "GET", "/v1/replay", gate.token("asker", *roles)).code == "method_not_allowed"


def test_replay_is_refused_when_another_key_signed(gate: GateProcess, tmp_path: Path) -> None:
    assert tidegate("init", str(tmp_path / "other")).returncode == 0
    raw = base64.b64encode((tmp_path / "other" / "bundle.tar.gz").read_bytes()).decode()
    answered = send(gate, "POST", "/v1/replay", gate.token("aud", "auditor"), {"bundle": raw})
    assert answered.code == "arguments_invalid" and "bundle_signature_invalid" in answered.body["detail"]


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        pytest.param((), 2, "usage", id="no bundle"),
        pytest.param(("--bundle", "b"), 2, "config_missing", id="no store"),
        pytest.param(("--bundle", "/nosuch", "--config", "C"), 3, "bundle_missing", id="no file"),
        pytest.param(
            ("--gate", "http://127.0.0.1:9", "--bundle", "/nosuch"), 3, "bundle_missing", id="nothing to send"
        ),
        pytest.param(("--gate", "http://127.0.0.1:9"), 3, "gate_unreachable", id="no gate"),
    ],
)
def test_replay_fails_when_it_is_given(gate: GateProcess, arguments: tuple[str, ...], status: int, code: str) -> None:
    found, answers, _ = policy("replay", *(str(gate.config) if each == "C" else each for each in arguments))
    assert (found, answers[-1]["error"]["code"]) == (status, code)


def test_shadow_lists_differences_by_kind(gate: GateProcess) -> None:
    call = denied_call(gate, "listed", tenant="listed")
    auditor = gate.token("aud", "auditor", tenant="listed")
    await_items(gate, auditor)
    status, (listed,), _ = policy("shadow", "--kind", "loosening", token=auditor, gate=gate.url)
    assert (status, [item["call"] for item in listed["items"]]) == (0, [call])
    words = tidegate("policy", "shadow", token=auditor, gate=gate.url).stdout
    assert "sequence 90" in words and call in words
    assert policy("shadow", "--kind", "nosuch", token=auditor, gate=gate.url)[0] == 1


def test_recorded_call_is_told_from_its_records_when_nothing_was_kept(
    tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns, gate: GateProcess
) -> None:
    directory = tmp_path_factory.mktemp("unkept") / "gate"
    shutil.copytree(gate.directory, directory, ignore=shutil.ignore_patterns("state", "gate.log"))
    listen = {"gate": f"127.0.0.1:{free_port()}", "metrics": None}
    edit_config(directory, {"listen": listen, "records": {"inputs_keep_seconds": 0}})
    with GateProcess.start(directory) as other:
        answered = send(other, "POST", "/v1/calls", other.token("bot", "triage"), DELETE)
        call, auditor = str(answered.body["call"]), other.token("aud", "auditor")
        again = send(other, "POST", "/v1/simulate", auditor, {"call": call})
        assert (again.code, again.body["recorded"]["effect"]) == ("not_found", "DENY")
        status, (told,), _ = policy("explain", call, "--config", str(other.config))
    assert (status, told["note"], told["recorded"]["effect"]) == (0, "input_not_kept", "DENY")
    assert told["recorded"]["reasons"] == ["no_deletes"]


def test_tests_and_coverage_are_told_by_rule(starter_directory: Path, tmp_path: Path) -> None:
    source = tmp_path / "bundle"
    shutil.copytree(starter_directory / "bundle", source)
    status, (report,), _ = policy("coverage", str(source), "--threshold", "90")
    assert status == 0 and report["failed"] == [] and report["passed"] > 10
    (source / "policies/slack/slack_test.rego").unlink()
    status, (report,), _ = policy("coverage", str(source), "--threshold", "99")
    slack = next(file for file in report["files"] if file["file"] == "policies/slack/slack.rego")
    assert status == 1 and slack["coverage"] < 50 and {rule["rule"] for rule in slack["rules"]} >= {"allow", "deny"}
    words = tidegate("policy", "coverage", str(source)).stdout
    assert "not covered" in words and "policies/slack/slack.rego" in words
    assert not any(file["file"].startswith("lib/") for file in report["files"])


def test_tests_fail_with_their_names(starter_directory: Path, tmp_path: Path) -> None:
    source = tmp_path / "bundle"
    shutil.copytree(starter_directory / "bundle", source)
    failing = "package policies.slack_test\n\ntest_never if false\n"
    (source / "policies/slack/slack_test.rego").write_text(failing, encoding="utf-8")
    for command in ("test", "coverage"):
        status, (report,), _ = policy(command, str(source))
        assert status == 1 and [name.rpartition(".")[2] for name in report["failed"]] == ["test_never"]
    assert policy("test", str(tmp_path / "nosuch"))[0] != 0
