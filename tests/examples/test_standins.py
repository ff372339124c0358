"""Stand-ins: labelled, strict about credentials, and as the services answer."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from examples.standins import github, provider, servicenow, slack, webhook
from examples.standins.__main__ import STARTER_PORTS, main
from examples.standins.service import CONTROL_PATH, LABEL, received

ROOT = Path(__file__).resolve().parents[2]
SECRET = "the-services-own-secret"
CALLERS_TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJkZXYifQ.c2ln"
START_SECONDS = 30

Client = TestClient[web.Request, web.Application]


def _basic(password: str, username: str = "gate") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def _bearer(token: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {token}"}


APPS: dict[str, Any] = {
    "servicenow": (lambda: servicenow.build(SECRET, "gate"), "GET", "/api/now/table/incident", _basic(SECRET)),
    "slack": (lambda: slack.build(SECRET), "POST", "/api/auth.test", _bearer(SECRET)),
    "slack-upload": (slack.build_upload, "POST", "/upload/v1/F1", {}),
    "github": (lambda: github.build(SECRET), "GET", "/user", _bearer(SECRET)),
    "openai": (lambda: provider.build_openai(SECRET), "GET", "/v1/models", _bearer(SECRET)),
    "anthropic": (lambda: provider.build_anthropic(SECRET), "GET", "/v1/models", {"x-api-key": SECRET}),
    "webhook": (lambda: webhook.build(SECRET), "POST", "/hook", _bearer(SECRET)),
}


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client of the stand-in named by the parameter."""
    async with TestClient(TestServer(APPS[request.param][0]())) as connected:
        yield connected


def _of(name: str) -> Any:
    return pytest.mark.parametrize("client", [name], indirect=True)


@pytest.mark.parametrize(("client", "name"), [(name, name) for name in APPS], indirect=["client"])
async def test_stand_in_labels_its_answer_and_remembers_the_request(client: Client, name: str) -> None:
    _, method, path, headers = APPS[name]
    async with client.request(method, path, headers=headers) as answer:
        assert answer.status in (200, 202)
        assert answer.headers[LABEL] == name
    remembered = received(client.app)
    assert [(entry.method, entry.path, entry.authorised) for entry in remembered] == [(method, path, True)]
    assert SECRET not in str(remembered)


@pytest.mark.parametrize("name", [name for name in APPS if name != "slack-upload"])
@pytest.mark.parametrize(
    "credential",
    [
        pytest.param({}, id="none"),
        pytest.param(_bearer("wrong"), id="wrong bearer"),
        pytest.param(_basic("wrong"), id="wrong password"),
        pytest.param(_basic(SECRET, "somebody"), id="wrong user"),
        pytest.param({"Authorization": "Basic %%%"}, id="unreadable"),
        pytest.param({"Authorization": "Basic " + base64.b64encode(b"nocolon").decode()}, id="no colon"),
        pytest.param({"x-api-key": "wrong"}, id="wrong key"),
        pytest.param(_bearer(""), id="empty"),
        pytest.param(_bearer(CALLERS_TOKEN), id="the caller's token"),
        pytest.param(_basic(CALLERS_TOKEN), id="the caller's token as password"),
        pytest.param({"x-api-key": CALLERS_TOKEN}, id="the caller's token as key"),
    ],
)
async def test_stand_in_refuses_when_the_credential_is_not_its_own(name: str, credential: dict[str, str]) -> None:
    build, method, path, _ = APPS[name]
    async with TestClient(TestServer(build())) as client:
        async with client.request(method, path, headers=credential) as answer:
            refused = answer.status == 401 or (await answer.json())["ok"] is False
            assert refused
        assert [entry.authorised for entry in received(client.app)] == [False]


@pytest.mark.parametrize("name", [name for name in APPS if name != "slack-upload"])
async def test_stand_in_without_a_secret_still_refuses_a_callers_token(name: str) -> None:
    builders = {
        "servicenow": servicenow.build, "slack": slack.build, "github": github.build, "webhook": webhook.build,
        "openai": provider.build_openai, "anthropic": provider.build_anthropic,
    }  # fmt: skip
    _, method, path, headers = APPS[name]
    async with TestClient(TestServer(builders[name]())) as client:
        async with client.request(method, path, headers=headers) as answer:
            assert answer.status in (200, 202)
        stolen = {key: value.replace(SECRET, CALLERS_TOKEN) for key, value in headers.items()}
        if name == "servicenow":
            stolen = _basic(CALLERS_TOKEN)
        async with client.request(method, path, headers=stolen) as answer:
            assert answer.status == 401 or (await answer.json())["ok"] is False


@_of("slack-upload")
async def test_upload_host_refuses_a_credential_that_has_no_business_there(client: Client) -> None:
    async with client.post("/upload/v1/F1", headers=_bearer(SECRET)) as answer:
        assert (await answer.json())["ok"] is False


@_of("servicenow")
async def test_servicenow_lists_reads_updates_and_deletes(client: Client) -> None:
    base, headers = "/api/now/table/incident", _basic(SECRET)
    async with client.get(f"{base}?sysparm_query=active=true^ORDERBYnumber&sysparm_limit=2", headers=headers) as answer:
        listed = (await answer.json())["result"]
        assert len(listed) == 2 and int(answer.headers["X-Total-Count"]) > 2
        assert "sysparm_offset=2" in answer.headers["Link"]
        assert listed[0]["caller_id"]["link"].startswith("http://127.0.0.1:")
    sys_id = listed[0]["sys_id"]
    async with client.patch(f"{base}/{sys_id}", json={"state": "2", "sys_id": "x"}, headers=headers) as answer:
        assert (await answer.json())["result"]["state"] == "2"
    query = "?sysparm_fields=state,sys_id&sysparm_exclude_reference_link=true"
    async with client.get(f"{base}/{sys_id}{query}", headers=headers) as answer:
        assert await answer.json() == {"result": {"state": "2", "sys_id": sys_id}}
    async with client.delete(f"{base}/{sys_id}", headers=headers) as answer:
        assert answer.status == 204
    for method in ("GET", "PATCH", "DELETE"):
        async with client.request(method, f"{base}/{sys_id}", headers=headers) as answer:
            assert answer.status == 404


@_of("servicenow")
async def test_servicenow_creates_and_names_the_new_record(client: Client) -> None:
    body = {"short_description": "new"}
    async with client.post("/api/now/table/change_request", json=body, headers=_basic(SECRET)) as answer:
        assert answer.status == 201
        created = (await answer.json())["result"]
        assert answer.headers["Location"].endswith(created["sys_id"])
    async with client.get("/api/now/table/unknown", headers=_basic(SECRET)) as answer:
        assert (answer.status, answer.headers[LABEL]) == (404, "servicenow")


@_of("slack")
async def test_slack_takes_a_message_as_json_and_as_a_form(client: Client) -> None:
    for body in ({"json": {"channel": "C1", "text": "x"}}, {"data": {"channel": "C1", "text": "x"}}):
        async with client.post("/api/chat.postMessage", headers=_bearer(SECRET), **body) as answer:
            assert (await answer.json())["ok"] is True
    for body, code in (({"text": "x"}, "channel_not_found"), ({"channel": "C1"}, "no_text")):
        async with client.post("/api/chat.postMessage", headers=_bearer(SECRET), json=body) as answer:
            assert await answer.json() == {"ok": False, "error": code}


@_of("slack")
async def test_slack_upload_begins_at_an_absolute_url_and_completes(client: Client) -> None:
    headers = _bearer(SECRET)
    form = {"filename": "n.txt", "length": "3"}
    async with client.post("/api/files.getUploadURLExternal", data=form, headers=headers) as answer:
        begun = await answer.json()
    assert re.fullmatch(re.escape(slack.UPLOAD_BASE) + r"/upload/v1/F\d+", begun["upload_url"])
    done = {"files": json.dumps([{"id": begun["file_id"]}])}
    async with client.post("/api/files.completeUploadExternal", data=done, headers=headers) as answer:
        assert (await answer.json())["files"] == [{"id": begun["file_id"], "title": "n.txt"}]


@_of("slack")
@pytest.mark.parametrize(
    ("method", "form", "code"),
    [
        ("files.getUploadURLExternal", {"filename": "n"}, "invalid_arguments"),
        ("files.completeUploadExternal", {"files": "[]"}, "file_not_found"),
        ("files.completeUploadExternal", {"files": '[{"id":"F9"}]'}, "file_not_found"),
        ("files.completeUploadExternal", {"files": "{"}, "invalid_arguments"),
    ],
)
async def test_slack_upload_refuses_what_it_does_not_know(
    client: Client, method: str, form: dict[str, str], code: str
) -> None:
    async with client.post(f"/api/{method}", data=form, headers=_bearer(SECRET)) as answer:
        assert await answer.json() == {"ok": False, "error": code}


@_of("github")
async def test_github_names_its_next_page_by_an_absolute_url(client: Client) -> None:
    headers = _bearer(SECRET, "token")
    async with client.get("/repos/acme/widgets/issues?state=all&per_page=2", headers=headers) as answer:
        first = await answer.json()
        following = re.search(r'<(http://127[^>]+)>; rel="next"', answer.headers["Link"])
    assert following is not None
    path = following[1].removeprefix(str(client.make_url("")).rstrip("/"))
    async with client.get(path, headers=headers) as answer:
        second = await answer.json()
        assert 'rel="prev"' in answer.headers["Link"] and 'rel="next"' not in answer.headers["Link"]
    assert [issue["number"] for issue in first + second] == [1, 2, 3]
    assert first[0]["url"].startswith("http://127.0.0.1:")


@_of("github")
async def test_github_creates_updates_and_comments(client: Client) -> None:
    base, headers = "/repos/acme/widgets/issues", _bearer(SECRET)
    async with client.post(base, json={"title": "t"}, headers=headers) as answer:
        created = await answer.json()
        assert answer.status == 201 and answer.headers["Location"] == created["url"]
    async with client.patch(f"{base}/{created['number']}", json={"state": "closed"}, headers=headers) as answer:
        assert (await answer.json())["state"] == "closed"
    async with client.post(f"{base}/{created['number']}/comments", json={"body": "b"}, headers=headers) as answer:
        assert answer.status == 201
    async with client.get(f"{base}/{created['number']}/comments", headers=headers) as answer:
        assert [comment["body"] for comment in await answer.json()] == ["b"]
    async with client.post(base, json={}, headers=headers) as answer:
        assert answer.status == 422
    async with client.get(f"{base}/999", headers=headers) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("client", "path", "headers", "last"),
    [
        ("openai", "/v1/chat/completions", _bearer(SECRET), b"data: [DONE]\n\n"),
        ("anthropic", "/v1/messages", {"x-api-key": SECRET, "anthropic-version": "2023-06-01"}, b"message_stop"),
    ],
    indirect=["client"],
)
async def test_provider_streams_in_pieces(client: Client, path: str, headers: dict[str, str], last: bytes) -> None:
    body = {"model": "m", "max_tokens": 8, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    async with client.post(path, json=body, headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        pieces = [piece async for piece in answer.content.iter_any()]
    assert len(pieces) > 3
    assert last in pieces[-1]


@_of("anthropic")
async def test_anthropic_needs_its_version_header(client: Client) -> None:
    async with client.post("/v1/messages", json={}, headers={"x-api-key": SECRET}) as answer:
        assert answer.status == 400


@_of("webhook")
async def test_webhook_says_back_what_it_received(client: Client) -> None:
    async with client.post("/a/b", json={"x": 1}, headers=_bearer(SECRET)) as answer:
        assert await answer.json() == {"received": {"x": 1}, "path": "/a/b"}
    async with client.post("/a/b", data=b"{", headers=_bearer(SECRET)) as answer:
        assert answer.status == 400


@_of("webhook")
async def test_what_was_received_can_be_asked_for_and_forgotten(client: Client) -> None:
    async with client.post("/a", json={"x": 1}, headers=_bearer(SECRET)):
        pass
    for method, expected in (("GET", 1), ("DELETE", 1), ("GET", 0)):
        async with client.request(method, CONTROL_PATH) as answer:
            assert len(await answer.json()) == expected


def test_all_stand_ins_run_until_they_are_told_to_end(tmp_path: Path) -> None:
    (tmp_path / "webhook.secret").write_text(f"{SECRET}\n")
    ports_file = tmp_path / "ports.json"
    command = [
        sys.executable,
        "-m",
        "examples.standins",
        "--ports-file",
        str(ports_file),
        "--secrets-dir",
        str(tmp_path),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ports_file.is_file() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            ports = json.loads(ports_file.read_text())
            assert ports.keys() == STARTER_PORTS.keys()
            request = urllib.request.Request(f"http://127.0.0.1:{ports['webhook']}/x", b"{}", _bearer(SECRET))
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.headers[LABEL] == "webhook"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0


def test_port_that_is_taken_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--ports-file", str(tmp_path / "p"), "--port", f"slack-upload={port}"]) == 3
    assert "cannot start" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["slack", "slack=", "slack=x", "unknown=1", "slack=65536"])
def test_port_that_is_none_is_a_usage_error(port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--port", port])
    assert ended.value.code == 2
