"""Unmodified Python clients of real services through a real gate: only base URL and secret are changed."""

from __future__ import annotations

import io
import subprocess
from typing import Any

import anthropic
import github
import httpx
import openai
import pytest
import requests
from slack_sdk import WebClient

from tests.e2e.harness import GateProcess

BEARER_PATH = "/api/now/table/incident"
PYSNOW_WARNINGS = pytest.mark.filterwarnings("ignore")
"""pysnow 0.7 is older than the warnings it raises; they say nothing about the gate."""


def test_openai_chat_answers_when_policy_allows(gate: GateProcess) -> None:
    with openai.OpenAI(base_url=f"{gate.instance('openai')}/v1", api_key=gate.token("dev", "developer")) as client:
        answer = client.chat.completions.create(
            model="gpt-4.1-mini", max_tokens=64, messages=[{"role": "user", "content": "Say hello."}]
        )
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content


def test_openai_stream_arrives_in_pieces_when_policy_allows(gate: GateProcess) -> None:
    with openai.OpenAI(base_url=f"{gate.instance('openai')}/v1", api_key=gate.token("dev", "developer")) as client:
        stream = client.chat.completions.create(
            model="gpt-4.1-mini", max_tokens=64, stream=True, messages=[{"role": "user", "content": "Say hello."}]
        )
        pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 1


def test_openai_raises_permission_denied_once_when_policy_denies(gate: GateProcess) -> None:
    with openai.OpenAI(base_url=f"{gate.instance('openai')}/v1", api_key=gate.token("auditor-1", "auditor")) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.chat.completions.create(
                model="gpt-4.1-mini", max_tokens=64, messages=[{"role": "user", "content": "Say hello."}]
            )
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.json()["code"] == "denied"


def test_anthropic_message_answers_when_policy_allows(gate: GateProcess) -> None:
    with anthropic.Anthropic(base_url=gate.instance("anthropic"), api_key=gate.token("dev", "developer")) as client:
        answer = client.messages.create(
            model="claude-opus-4-6", max_tokens=64, messages=[{"role": "user", "content": "Say hello."}]
        )
    assert answer.role == "assistant"
    assert answer.content


def test_anthropic_stream_arrives_in_pieces_when_policy_allows(gate: GateProcess) -> None:
    with anthropic.Anthropic(base_url=gate.instance("anthropic"), api_key=gate.token("dev", "developer")) as client:
        with client.messages.stream(
            model="claude-opus-4-6", max_tokens=64, messages=[{"role": "user", "content": "Say hello."}]
        ) as stream:
            pieces = list(stream.text_stream)
    assert len(pieces) > 1


def _slack(gate: GateProcess) -> WebClient:
    return WebClient(token=gate.token("dev", "developer"), base_url=f"{gate.instance('slack')}/api/")


def test_slack_message_is_posted_when_policy_allows(gate: GateProcess) -> None:
    answer = _slack(gate).chat_postMessage(channel="C0123456789", text="the gate stands")
    assert answer["ok"] is True


def test_slack_upload_passes_the_gate_in_all_three_steps_when_policy_allows(
    gate: GateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    original = WebClient._upload_file

    def noting(client: WebClient, *, url: str, **options: Any) -> Any:
        seen.append(url)
        return original(client, url=url, **options)

    monkeypatch.setattr(WebClient, "_upload_file", noting)
    answer = _slack(gate).files_upload_v2(
        channel="C0123456789", filename="notes.txt", file=io.BytesIO(b"what was agreed\n" * 10), title="Notes"
    )
    assert answer["ok"] is True
    assert seen and all(url.startswith(gate.instance("slack-upload")) for url in seen)
    assert all("tidegate_ticket=" in url for url in seen)


def _github(gate: GateProcess) -> github.Github:
    return github.Github(
        auth=github.Auth.Token(gate.token("dev", "developer")), base_url=gate.instance("github"), per_page=2, retry=None
    )


def test_github_reads_a_repository_when_policy_allows(gate: GateProcess) -> None:
    with _github(gate) as client:
        assert client.get_repo("acme/widgets").full_name == "acme/widgets"


def test_github_follows_pages_through_the_gate_when_policy_allows(gate: GateProcess) -> None:
    with _github(gate) as client:
        numbers = [issue.number for issue in client.get_repo("acme/widgets").get_issues(state="all")]
    assert len(numbers) > 2
    assert len(set(numbers)) == len(numbers)


def test_github_creates_an_issue_when_policy_allows(gate: GateProcess) -> None:
    with _github(gate) as client:
        issue = client.get_repo("acme/widgets").create_issue(title="Gate is leaking", body="Not any more.")
        assert issue.title == "Gate is leaking"
        assert issue.url.startswith(gate.url)


def _pysnow(gate: GateProcess) -> Any:
    import pysnow

    host = gate.instance("servicenow").removeprefix("http://")
    client = pysnow.Client(host=host, user="triage-bot", password=gate.token("triage-bot", "triage"), use_ssl=False)
    return client.resource(api_path="/table/incident")


@PYSNOW_WARNINGS
def test_pysnow_queries_when_policy_allows(gate: GateProcess) -> None:
    found = _pysnow(gate).get(query={"active": "true"}, limit=2).all()
    assert found


@PYSNOW_WARNINGS
def test_pysnow_updates_when_policy_allows(gate: GateProcess) -> None:
    table = _pysnow(gate)
    number = table.get(query={"active": "true"}, limit=1).all()[0]["number"]
    changed = table.update(query={"number": number}, payload={"short_description": "seen by triage"})
    assert changed["short_description"] == "seen by triage"


def test_httpx_reads_when_policy_allows(gate: GateProcess) -> None:
    token = gate.token("triage-bot", "triage")
    with httpx.Client(base_url=gate.instance("servicenow"), headers={"Authorization": f"Bearer {token}"}) as client:
        answer = client.get(BEARER_PATH, params={"sysparm_limit": 1})
    assert answer.status_code == 200
    assert answer.headers["tidegate-effect"] == "ALLOW"
    assert len(answer.json()["result"]) == 1


def test_requests_reads_when_policy_allows(gate: GateProcess) -> None:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(
            f"{gate.instance('servicenow')}{BEARER_PATH}",
            params={"sysparm_limit": "1"},
            auth=("triage-bot", gate.token("triage-bot", "triage")),
            timeout=30,
        )
    assert answer.status_code == 200
    assert len(answer.json()["result"]) == 1


def test_curl_reads_when_policy_allows(gate: GateProcess) -> None:
    done = subprocess.run(
        [
            "curl",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--fail-with-body",
            "--header",
            f"Authorization: Bearer {gate.token('triage-bot', 'triage')}",
            f"{gate.instance('servicenow')}{BEARER_PATH}?sysparm_limit=1",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert '"result"' in done.stdout
