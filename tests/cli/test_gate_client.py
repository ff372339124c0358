"""What a command says when it cannot ask, when nobody answers, and when what answers is no gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.approvals import _looked
from cli.gate_client import GateClient
from cli.main import command_line
from tests.cli.gate_stub import gate_stub

RUNNER = CliRunner()
APP = command_line(())
JSON = "application/json"
PROBLEM = "application/problem+json"
LIST = ("approvals", "list")
APPROVAL = {
    "id": "a b",
    "state": "pending",
    "action": "x.y.z",
    "instance": "x",
    "created": "2026-01-01T00:00:00Z",
    "decide_by": "2026-01-01T00:00:00Z",
    "action_digest": "sha256:00",
}


def _run(*arguments: str, gate: str = "http://127.0.0.1:9", token: str = "t") -> tuple[int, str, str]:
    """Exit status, stable code and all that was printed; each way of printing ends alike."""
    environment = {"TIDEGATE_TOKEN": token, "TIDEGATE_GATE": gate}
    plain = RUNNER.invoke(APP, list(arguments), env=environment)
    done = RUNNER.invoke(APP, [*arguments, "--json"], env=environment)
    assert plain.exit_code == done.exit_code
    for result in (plain, done):
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    document = json.loads(done.output)
    return done.exit_code, document.get("error", {}).get("code", ""), plain.output


@pytest.mark.parametrize(
    "gate",
    [
        pytest.param("http://127.0.0.1:99999", id="a port that is none"),
        pytest.param("http://[::1", id="half a bracket"),
        pytest.param("127.0.0.1:8080", id="no scheme"),
        pytest.param("ftp://127.0.0.1", id="another scheme"),
        pytest.param("http://", id="no host"),
        pytest.param("http://127.0.0.1/\u00e9", id="a path beyond ASCII"),
        pytest.param("http://127.0.0.1/a b", id="a path with a space"),
        pytest.param("http://a..b", id="a name that is none"),
    ],
)
def test_command_is_misused_when_the_address_is(gate: str) -> None:
    assert _run(*LIST, gate=gate)[:2] == (2, "usage")


def test_command_says_what_to_write_when_the_scheme_is_missing() -> None:
    assert "write http://127.0.0.1:8080" in _run(*LIST, gate="127.0.0.1:8080")[2]


@pytest.mark.parametrize("token", ["a\nb", "a b", "\u043a\u043b\u044e\u0447", "a\x7fb"])
def test_command_is_misused_when_the_token_is_none(token: str) -> None:
    assert _run(*LIST, token=token)[:2] == (2, "token_unreadable")


@pytest.mark.parametrize("content", [None, b"\x7fELF\xff\x00", b"", b" \n", b"one\ntwo"])
def test_command_is_misused_when_the_token_file_holds(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    status, code, printed = _run(*LIST, "--token-file", str(file))
    assert (status, code) == (2, "token_unreadable")
    assert content == b"one\ntwo" or str(file) in printed


def test_token_of_the_file_is_sent_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"abc\n")
    with gate_stub(lambda *_: (200, JSON, {"items": [], "next": None})) as stub:
        assert _run(*LIST, "--token-file", str(tmp_path / "token"), gate=stub.url)[0] == 0
    assert {headers["Authorization"] for _, _, headers in stub.asked} == {"Bearer abc"}


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        pytest.param(JSON, {"error": "none"}, id="another object"),
        pytest.param(JSON, [], id="a list"),
        pytest.param(JSON, 7, id="a number"),
        pytest.param("text/html", b"<html>", id="no JSON"),
        pytest.param(JSON, b"[" * 100_000, id="nesting without end"),
        pytest.param(JSON, {"items": 7, "next": None, "id": 1}, id="items that are none"),
        pytest.param(JSON, {"items": [{}], "next": None, "id": 1}, id="items of another kind"),
        pytest.param(PROBLEM, [], id="a problem that is none"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        LIST,
        ("approvals", "show", "x"),
        ("approvals", "approve", "x"),
        ("approvals", "watch", "--rounds", "1"),
        ("switch", "list"),
        ("call", "x", "x.y.z"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_command_is_unavailable_when_what_answers_is_no_gate(
    command: tuple[str, ...], media_type: str, body: Any
) -> None:
    with gate_stub(lambda *_: (200, media_type, body)) as stub:
        assert _run(*command, gate=stub.url)[:2] == (3, "gate_unreachable")


@pytest.mark.parametrize("status", [301, 404, 500])
def test_command_is_unavailable_when_the_answer_is_no_success_and_no_problem(status: int) -> None:
    with gate_stub(lambda *_: (status, JSON, {"items": [], "next": None})) as stub:
        assert _run(*LIST, gate=stub.url)[:2] == (3, "gate_unreachable")


@pytest.mark.parametrize(
    ("approval", "target"),
    [
        ("a b", "/v1/approvals/a%20b"),
        ("\u00e9", "/v1/approvals/%C3%A9"),
        ("../switches", "/v1/approvals/..%2Fswitches"),
        ("?state=pending", "/v1/approvals/%3Fstate%3Dpending"),
    ],
)
def test_id_is_one_segment_of_the_path_whatever_it_holds(approval: str, target: str) -> None:
    with gate_stub(lambda *_: (200, JSON, APPROVAL)) as stub:
        assert _run("approvals", "show", approval, gate=stub.url)[0] == 0
        assert set(stub.targets) == {target}
        stub.asked.clear()
        assert _run("approvals", "approve", approval, gate=stub.url)[0] == 0
        assert set(stub.targets) == {target, f"{target}/votes"}


@pytest.mark.parametrize(
    ("state", "target"), [("a b", "?state=a+b"), ("a&cursor=1", "?state=a%26cursor%3D1"), ("", "")]
)
def test_state_is_one_parameter_whatever_it_holds(state: str, target: str) -> None:
    with gate_stub(lambda *_: (200, JSON, {"items": [], "next": None})) as stub:
        assert _run(*LIST, "--state", state, gate=stub.url)[0] == 0
    assert set(stub.targets) == {f"/v1/approvals{target}"}


def test_reason_is_sent_as_utf8_and_refused_when_it_has_a_line_end() -> None:
    answer = {"id": "c", "state": "done", "effect": "ALLOW"}
    with gate_stub(lambda *_: (200, JSON, answer)) as stub:
        assert _run("call", "x", "x.y.z", "--reason", "\u043a\u043b", gate=stub.url)[0] == 0
        sent = {headers["Tidegate-Reason"].encode("latin-1").decode() for _, _, headers in stub.asked}
        assert sent == {"\u043a\u043b"}
        assert _run("call", "x", "x.y.z", "--reason", "a\nb", gate=stub.url)[:2] == (2, "usage")


@pytest.mark.parametrize("command", [("approvals", "show", ""), ("switch", "set", "tenant/acme", "--reason", " ")])
def test_command_is_misused_when_a_text_is_empty(command: tuple[str, ...]) -> None:
    with gate_stub(lambda *_: (200, JSON, {})) as stub:
        status, code, printed = _run(*command, gate=stub.url)
    assert (status, code, stub.asked) == (2, "usage", [])
    assert "reason is empty" in printed or "its id" in printed


class Paged:
    """Approvals in pages of fifty, newest first, as a gate lists them."""

    def __init__(self, count: int) -> None:
        self.states = {f"{number:05}": "pending" for number in range(count)}

    def __call__(self, _method: str, target: str) -> tuple[int, str, Any]:
        path, _, query = target.partition("?")
        given = dict(part.split("=") for part in query.split("&") if part)
        if path != "/v1/approvals":
            return 200, JSON, self._item(path.rpartition("/")[2])
        before = given.get("cursor", "99999")
        wanted = given.get("state")
        found = [
            one for one in sorted(self.states, reverse=True) if one < before and wanted in (None, self.states[one])
        ]
        following = found[49] if len(found) > 50 else None
        return 200, JSON, {"items": [self._item(one) for one in found[:50]], "next": following}

    def _item(self, approval: str) -> dict[str, Any]:
        return {**APPROVAL, "id": approval, "state": self.states[approval], "created": approval}


def test_list_follows_the_cursor_to_the_end() -> None:
    with gate_stub(Paged(120)) as stub:
        done = RUNNER.invoke(APP, [*LIST, "--json", "--gate", stub.url])
        page = json.loads(done.stdout)
        assert (len(page["items"]), page["next"], len(stub.asked)) == (120, None, 3)
        printed = RUNNER.invoke(APP, [*LIST, "--gate", stub.url]).stdout
    assert "00000" in printed
    assert "there are more" not in printed


@pytest.mark.parametrize(("count", "more"), [(5000, None), (5001, "00001")], ids=["at the bound", "one past it"])
def test_list_says_how_to_go_on_when_it_ends_before_the_end(count: int, more: str | None) -> None:
    with gate_stub(Paged(count)) as stub:
        page = json.loads(RUNNER.invoke(APP, [*LIST, "--json", "--gate", stub.url]).stdout)
        assert (len(page["items"]), page["next"]) == (5000, more)
        if more is not None:
            rest = RUNNER.invoke(APP, [*LIST, "--json", "--cursor", more, "--gate", stub.url]).stdout
            assert [item["id"] for item in json.loads(rest)["items"]] == ["00000"]


def test_watch_announces_all_that_is_open_oldest_first() -> None:
    with gate_stub(Paged(53)) as stub:
        done = RUNNER.invoke(APP, ["approvals", "watch", "--rounds", "1", "--json", "--gate", stub.url])
    said = [(item["id"], item["state"]) for item in map(json.loads, done.stdout.splitlines())]
    assert said == [(f"{number:05}", "pending") for number in range(53)]


def test_watch_looks_at_what_was_open_until_it_has_ended() -> None:
    paged = Paged(53)
    with gate_stub(paged) as stub:
        client = GateClient(stub.url, "t")
        known = _states(_looked(client, {}))
        paged.states |= {"00000": "denied", "00001": "approved"}
        paged.states |= {f"{number:05}": "expired" for number in range(53, 120)}
        second = _states(_looked(client, known))
        paged.states["00001"] = "consumed"
        third = _states(_looked(client, second))
        stub.asked.clear()
        fourth = _states(_looked(client, third))
    assert second.items() - known.items() == {("00000", "denied"), ("00001", "approved")} | {
        (f"{number:05}", "expired") for number in range(70, 120)
    }
    assert third.items() - second.items() == {("00001", "consumed")}
    assert "00000" not in third
    assert fourth.keys() == third.keys() - {"00001"}
    assert all(target.startswith("/v1/approvals?") or target == "/v1/approvals" for target in stub.targets)


def _states(found: list[dict[str, Any]]) -> dict[str, str]:
    return {item["id"]: item["state"] for item in found}
