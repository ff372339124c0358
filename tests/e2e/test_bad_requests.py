"""Bad requests on a real socket: each is refused with its stable code, and the gate serves the next one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.harness import GateProcess, read_config
from tests.e2e.raw import Answer, exchange, request

LIST = "/c/servicenow/api/now/table/incident"
UPDATE = f"{LIST}/a1"
JSON_TYPE = {"Content-Type": "application/json"}
DEEP_LEVELS = 10_000
MANY_HEADERS = 100_000
GIB = 1 << 30


def _send(
    gate: GateProcess, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Answer:
    token = gate.token("triage-bot", "triage")
    return exchange(gate.url, request(method, target, {"Authorization": f"Bearer {token}", **(headers or {})}, body))


def _still_serves(gate: GateProcess) -> None:
    assert _send(gate, "GET", f"{LIST}?sysparm_limit=1").status == 200


TARGETS = [
    pytest.param("/c/servicenow/api/now/../table/incident", id="dot segments"),
    pytest.param("/c/servicenow/api/now/%2e%2e/table/incident", id="encoded dot segments"),
    pytest.param("/c/servicenow/api/now/%252e%252e/table/incident", id="doubly encoded dot segments"),
    pytest.param("/c/servicenow/api/now//table/incident", id="an empty segment"),
    pytest.param("/c/servicenow/api/now/table%2Fincident", id="an encoded slash"),
    pytest.param("/c/servicenow/api/now/table%5Cincident", id="an encoded backslash"),
    pytest.param("/c/servicenow/api/now/table/incident%00", id="an encoded null byte"),
    pytest.param("/c/servicenow/api/now/table;x=1/incident", id="a path parameter"),
]


@pytest.mark.parametrize("target", TARGETS)
def test_gate_refuses_when_the_path_has_two_readings(gate: GateProcess, target: str) -> None:
    answer = _send(gate, "GET", target)
    assert (answer.status, answer.code) in {
        (400, "malformed_request"),
        (403, "unclassified"),
        (422, "arguments_invalid"),
    }
    if "252e" not in target:
        assert answer.code == "malformed_request"
    _still_serves(gate)


def test_gate_refuses_when_the_target_names_another_host(gate: GateProcess) -> None:
    answer = _send(gate, "GET", "http://169.254.169.254/latest/meta-data")
    assert (answer.status, answer.code) == (400, "malformed_request")


HEADS = [
    pytest.param({"X-HTTP-Method-Override": "DELETE"}, id="a method override"),
    pytest.param({"Content-Encoding": "gzip"}, id="a content encoding"),
    pytest.param({"Upgrade": "websocket", "Connection": "Upgrade"}, id="an upgrade"),
    pytest.param({"Transfer-Encoding": "gzip, chunked"}, id="a coded transfer"),
    pytest.param({"X-UserToken": "another secret"}, id="a second credential of the service"),
]


@pytest.mark.parametrize("headers", HEADS)
def test_gate_refuses_when_a_header_changes_the_meaning(gate: GateProcess, headers: dict[str, str]) -> None:
    answer = _send(gate, "PATCH", UPDATE, {**JSON_TYPE, **headers}, b"{}")
    assert (answer.status, answer.code) == (400, "malformed_request")
    _still_serves(gate)


def test_gate_refuses_when_the_length_is_given_twice(gate: GateProcess) -> None:
    headers = {**JSON_TYPE, "Content-Length": "5", "Transfer-Encoding": "chunked"}
    answer = _send(gate, "PATCH", UPDATE, headers, b"0\r\n\r\n")
    assert (answer.status, answer.code) == (400, "malformed_request")


BODIES = [
    pytest.param(b"{", id="cut JSON"),
    pytest.param(b'{"short_description": "\xff"}', id="invalid UTF-8"),
    pytest.param(b'{"short_description": NaN}', id="NaN"),
    pytest.param(b'{"state": 1, "state": 2}', id="a duplicate key"),
    pytest.param(b'{"state": 1, "st\\u0061te": 2}', id="an escaped twin of a key"),
    pytest.param(b'{"state": 9007199254740993}', id="an integer beyond exact floats"),
    pytest.param(b'{"state": 1e400}', id="a number beyond floats"),
    pytest.param(b'{"state": ' + b"[" * DEEP_LEVELS + b"]" * DEEP_LEVELS + b"}", id="10,000 levels"),
    pytest.param(b'{"short_description": "\\ud800"}', id="a lone surrogate"),
    pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
]


@pytest.mark.parametrize("body", BODIES)
def test_gate_refuses_when_the_body_is_not_strict_json(gate: GateProcess, body: bytes) -> None:
    answer = _send(gate, "PATCH", UPDATE, JSON_TYPE, body)
    assert (answer.status, answer.code) == (400, "malformed_request")
    _still_serves(gate)


def test_gate_refuses_when_there_are_100000_headers(gate: GateProcess) -> None:
    head = f"GET {LIST} HTTP/1.1\r\nHost: gate.test\r\n".encode()
    answer = exchange(gate.url, head, b"".join(b"x-%d: 1\r\n" % n for n in range(MANY_HEADERS)), b"\r\n")
    assert (answer.status, answer.code) == (431, "headers_too_large")
    _still_serves(gate)


def test_gate_refuses_before_reading_when_the_body_is_1_gib(gate: GateProcess) -> None:
    headers = {
        "Authorization": f"Bearer {gate.token('triage-bot', 'triage')}",
        **JSON_TYPE,
        "Content-Length": str(GIB),
    }
    started = time.monotonic()
    answer = exchange(gate.url, request("PATCH", UPDATE, headers), b"{", hold_open=True)
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert time.monotonic() - started < 20


def test_gate_refuses_when_the_target_is_too_long(gate: GateProcess) -> None:
    answer = _send(gate, "GET", f"{LIST}?sysparm_query={'a' * 9000}")
    assert (answer.status, answer.code) == (414, "uri_too_long")


# --- who asks -----------------------------------------------------------------------------------------------------
Forge = Callable[[GateProcess], str]


def _claims(gate: GateProcess, **changes: object) -> dict[str, object]:
    claims = jwt.decode(gate.token("triage-bot", "triage"), options={"verify_signature": False})
    return {**claims, **changes}


def _other_key(gate: GateProcess) -> str:
    header = jwt.get_unverified_header(gate.token("triage-bot", "triage"))
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(_claims(gate), key, "ES256", headers={"kid": header.get("kid")})


def _without_algorithm(gate: GateProcess) -> str:
    return jwt.encode(_claims(gate), "", "none")


def _hmac_with_public_key(gate: GateProcess) -> str:
    token = gate.token("triage-bot", "triage")
    reference = str(read_config(gate.directory)["identity"]["issuers"][0]["jwks"]).removeprefix("file:")
    keys = json.loads((gate.directory / reference).read_text(encoding="utf-8"))["keys"]
    public = jwt.PyJWK(keys[0]).key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head = {"alg": "HS256", "typ": "JWT", "kid": jwt.get_unverified_header(token).get("kid")}
    signed = b".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, _claims(gate))
    )
    mac = base64.urlsafe_b64encode(hmac.digest(public, signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + mac).decode()


def _changed_claims(gate: GateProcess) -> str:
    head, _, signature = gate.token("triage-bot", "triage").split(".")
    body = base64.urlsafe_b64encode(json.dumps(_claims(gate, roles=["operator"])).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


FORGERIES = [
    pytest.param(_other_key, id="another key"),
    pytest.param(_without_algorithm, id="alg none"),
    pytest.param(_hmac_with_public_key, id="HS256 with the public key"),
    pytest.param(_changed_claims, id="changed claims"),
    pytest.param(lambda gate: "not.a.token", id="no token at all"),
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_gate_refuses_when_the_token_is_forged(gate: GateProcess, forge: Forge) -> None:
    answer = exchange(gate.url, request("GET", LIST, {"Authorization": f"Bearer {forge(gate)}"}))
    assert (answer.status, answer.code) == (401, "identity_invalid")


def test_gate_refuses_when_there_is_no_token(gate: GateProcess) -> None:
    answer = exchange(gate.url, request("GET", LIST))
    assert (answer.status, answer.code) == (401, "identity_missing")
    assert "www-authenticate" in answer.headers


def test_gate_refuses_when_two_tokens_differ(gate: GateProcess) -> None:
    token, other = gate.token("triage-bot", "triage"), gate.token("dev", "developer")
    head = (
        f"GET {LIST} HTTP/1.1\r\nHost: gate.test\r\n"
        f"Authorization: Bearer {token}\r\nAuthorization: Bearer {other}\r\n\r\n"
    )
    answer = exchange(gate.url, head.encode())
    assert (answer.status, answer.code) == (400, "malformed_request")
