"""A service whose credential is fetched from a token endpoint: what fails there was never sent to the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calling import LIST, call, recorded
from tests.e2e.harness import GateProcess, edit_config, init_directory
from tests.e2e.hostile import HostileUpstream
from tests.e2e.rulebook import build

BODY = {"short_description": "sent"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """The service; its token endpoints are paths that cut and hang."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate that asks for a token before it asks the service, and waits for a second for one."""
    directory = init_directory(tmp_path_factory.mktemp("fetching") / "gate")
    _take_tokens(directory)
    here = f"http://127.0.0.1:{upstream.port}"
    credential = {"client_id": "gate", "client_secret": "file:keys/servicenow.secret", "token_url": f"{here}/close"}
    edit_config(directory, {"instances": {"servicenow": {"base_url": here, "credential": credential}}})
    with GateProcess.start(directory) as running:
        yield running


def _take_tokens(directory: Path) -> None:
    manifest = directory / "bundle" / "connectors" / "servicenow" / "data.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("{kind: basic}", "{kind: oauth2_client_credentials}"), encoding="utf-8")
    build(directory)


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_call_fails_plainly_when_the_token_endpoint_cuts(
    fetching: GateProcess, upstream: HostileUpstream, method: str
) -> None:
    headers = {"Idempotency-Key": "no token yet"} if method == "PATCH" else {}
    for _ in range(2):
        answer = call(fetching, method, f"{LIST}/needs-token", BODY if method == "PATCH" else None, headers=headers)
        assert (answer.status, answer.code) == (502, "upstream_failed")
        assert "token endpoint" in answer.json()["detail"]
        assert recorded(fetching, answer)[-1]["action"]["code"] == "upstream_failed"
    assert upstream.times_asked("/close") > 0
    assert upstream.times_asked("/needs-token") == 0
