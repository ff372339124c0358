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
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.calling import JSON_TYPE, LIST, host
from tests.e2e.harness import GateProcess, read_config
from tests.e2e.issuing import good_claims, issued, issuer_key, issuer_kid
from tests.e2e.raw import Answer, exchange, request

UPDATE = f"{LIST}/a1"
DEEP_LEVELS = 10_000
MANY_HEADERS = 100_000
GIB, MIB = 1 << 30, 1 << 20
CHUNK_BYTES = 1 << 16


def _send(
    gate: GateProcess, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Answer:
    token = gate.token("triage-bot", "triage")
    sent = {"Host": host(gate), "Authorization": f"Bearer {token}", **(headers or {})}
    return exchange(gate.url, request(method, target, sent, body))


def _bearer(gate: GateProcess, token: str) -> dict[str, str]:
    return {"Host": host(gate), "Authorization": f"Bearer {token}"}


def _still_serves(gate: GateProcess) -> None:
    assert _send(gate, "GET", f"{LIST}?sysparm_limit=1").status == 200


TARGETS = [
    pytest.param("/c/servicenow/api/now/../table/incident", id="dot segments"),
    pytest.param("/c/servicenow/api/now/%2e%2e/table/incident", id="encoded dot segments"),
    pytest.param("/c/servicenow/api/now/.%2E/table/incident", id="half encoded dot segments"),
    pytest.param("/c/servicenow/api/now/%252e%252e/table/incident", id="doubly encoded dot segments"),
    pytest.param("/c/servicenow/api/now/./table/incident", id="a dot segment that leads nowhere"),
    pytest.param("/c/servicenow/api/now/table/incident/..", id="dot segments at the end"),
    pytest.param("/c/../v1/enforcement", id="dot segments out of the instance"),
    pytest.param("/c/servicenow/api/now//table/incident", id="an empty segment"),
    pytest.param("/c/servicenow/api/now/table%2Fincident", id="an encoded slash"),
    pytest.param("/c/servicenow/api/now/table%252Fincident", id="a doubly encoded slash"),
    pytest.param("/c/servicenow/api/now/table\\incident", id="a backslash"),
    pytest.param("/c/servicenow/api/now/table%5Cincident", id="an encoded backslash"),
    pytest.param("/c/servicenow/api/now/table/incident\0", id="a null byte"),
    pytest.param("/c/servicenow/api/now/table/incident%00", id="an encoded null byte"),
    pytest.param("/c/servicenow/api/now/table/incident%2500", id="a doubly encoded null byte"),
    pytest.param("/c/servicenow/api/now/table/incident?sysparm_query=a%00b", id="an encoded null byte in the query"),
    pytest.param("/c/servicenow/api/now/table;x=1/incident", id="a path parameter"),
    pytest.param("/c/servicenow/api/now/table/incident;x=1", id="a path parameter at the end"),
    pytest.param("/c/servicenow/api/now/table/inc%3Bdent", id="an encoded semicolon"),
    pytest.param("/c/servicenow/api/now/table/incident?a=1;sysparm_limit=9", id="a semicolon in the query"),
    pytest.param("/c/servicenow/api/now/table/inc%ffdent", id="a path that is not UTF-8"),
    pytest.param("/c/servicenow/api/now/table/incident?sysparm_query=%ff", id="a query that is not UTF-8"),
    pytest.param("/c/servicenow/api/now/table/inc\xefdent", id="a path with a byte beyond ASCII"),
    pytest.param("/c/servicenow/api/now/table/incident%2", id="a cut escape"),
]


@pytest.mark.parametrize("target", TARGETS)
def test_gate_refuses_when_the_path_has_two_readings(gate: GateProcess, target: str) -> None:
    answer = _send(gate, "GET", target)
    assert (answer.status, answer.code) == (400, "malformed_request")
    _still_serves(gate)


HOSTS = [
    pytest.param("http://169.254.169.254/latest/meta-data", id="the metadata address"),
    pytest.param(f"http://elsewhere.test{LIST}", id="a path of ours at another host"),
    pytest.param(f"http://{{host}}@elsewhere.test{LIST}", id="our host as a user name"),
    pytest.param(f"https://127.0.0.1:1{LIST}", id="our host at another port"),
    pytest.param(f"ftp://{{host}}{LIST}", id="another scheme"),
    pytest.param("//elsewhere.test/c/servicenow", id="a host without a scheme"),
]


@pytest.mark.parametrize("target", HOSTS)
def test_gate_refuses_when_the_target_names_another_host(gate: GateProcess, target: str) -> None:
    answer = _send(gate, "GET", target.replace("{host}", host(gate)))
    assert (answer.status, answer.code) == (400, "malformed_request")
    _still_serves(gate)


def test_gate_accepts_when_the_absolute_target_names_its_own_host(gate: GateProcess) -> None:
    assert _send(gate, "GET", f"{gate.url}{LIST}?sysparm_limit=1").status == 200


def test_gate_refuses_when_a_tunnel_is_asked_for(gate: GateProcess) -> None:
    answer = _send(gate, "CONNECT", "169.254.169.254:443")
    assert (answer.status, answer.code) == (400, "malformed_request")


HEADS = [
    pytest.param({"X-HTTP-Method-Override": "DELETE"}, id="a method override"),
    pytest.param({"Content-Encoding": "gzip"}, id="a content encoding"),
    pytest.param({"Upgrade": "websocket", "Connection": "Upgrade"}, id="an upgrade"),
    pytest.param({"Transfer-Encoding": "gzip, chunked"}, id="a coded transfer"),
    pytest.param({"X-UserToken": "another secret"}, id="a second credential of the service"),
    pytest.param({"X-Note": "a\0b"}, id="a null byte in a header"),
    pytest.param({"Content-Type": "application/json; charset=utf-16"}, id="another charset"),
    pytest.param({"Trailer": "X-Later"}, id="an announced trailer"),
    pytest.param({"Expect": "200-maybe"}, id="an unknown expectation"),
]


@pytest.mark.parametrize("headers", HEADS)
def test_gate_refuses_when_a_header_changes_the_meaning(gate: GateProcess, headers: dict[str, str]) -> None:
    answer = _send(gate, "PATCH", UPDATE, {**JSON_TYPE, **headers}, b"{}")
    assert (answer.status, answer.code) == (400, "malformed_request")
    _still_serves(gate)


FRAMINGS = [
    pytest.param("Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", id="a length, then chunked"),
    pytest.param("Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n", id="chunked, then a length"),
    pytest.param("Content-Length: 2\r\nContent-Length: 3", b"{}}", id="two lengths"),
    pytest.param("Content-Length: 2\r\nContent-Length: 2", b"{}", id="the same length twice"),
    pytest.param("Content-Length: +2", b"{}", id="a length with a sign"),
    pytest.param("Content-Length: 2, 2", b"{}", id="a list of lengths"),
    pytest.param("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", id="chunked twice"),
    pytest.param("Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\nX-Later: 1\r\n\r\n", id="a trailer"),
    pytest.param("Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n", id="a chunk without a size"),
    pytest.param("Transfer-Encoding : chunked", b"2\r\n{}\r\n0\r\n\r\n", id="a space before the colon"),
    pytest.param("Content-Length: 2\r\n X-Folded: 1", b"{}", id="a folded header"),
]


@pytest.mark.parametrize(("framing", "body"), FRAMINGS)
def test_gate_refuses_when_the_body_has_two_lengths(gate: GateProcess, framing: str, body: bytes) -> None:
    token = gate.token("triage-bot", "triage")
    lines = ["PATCH " + UPDATE + " HTTP/1.1", f"Host: {host(gate)}", f"Authorization: Bearer {token}"]
    head = "\r\n".join([*lines, "Content-Type: application/json", framing, "", ""]).encode()
    answer = exchange(gate.url, head + body, hold_open=True)
    assert (answer.status, answer.code) == (400, "malformed_request")
    _still_serves(gate)


BODIES = [
    pytest.param(b"{", id="cut JSON"),
    pytest.param(b"no JSON", id="no JSON"),
    pytest.param(b"{} {}", id="two documents"),
    pytest.param(b'{"short_description": "a\0b"}', id="a null byte"),
    pytest.param(b'{"short_description": "\xff"}', id="invalid UTF-8"),
    pytest.param(b'{"short_description": NaN}', id="NaN"),
    pytest.param(b'{"short_description": -Infinity}', id="an infinity"),
    pytest.param(b'{"state": 1, "state": 2}', id="a duplicate key"),
    pytest.param(b'{"state": 1, "st\\u0061te": 2}', id="an escaped twin of a key"),
    pytest.param(b'{"work_notes": {"a": 1, "a": 1}}', id="a duplicate key further down"),
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


OWN_WORDS = [
    pytest.param(b'{"short_description": NaN}', id="NaN"),
    pytest.param(b'{"state": "1", "state": "2"}', id="a duplicate key"),
    pytest.param(b'{"state": "1", "st\\u0061te": "2"}', id="an escaped twin of a key"),
    pytest.param(b'{"state": "\xff"}', id="invalid UTF-8"),
    pytest.param(b'{"state": ' + b"[" * DEEP_LEVELS + b"]" * DEEP_LEVELS + b"}", id="10,000 levels"),
]


@pytest.mark.parametrize("arguments", OWN_WORDS)
def test_governed_call_is_refused_when_its_arguments_are_not_strict_json(gate: GateProcess, arguments: bytes) -> None:
    body = b'{"instance": "servicenow", "action": "incident.create", "arguments": ' + arguments + b"}"
    answer = _send(gate, "POST", "/v1/calls", JSON_TYPE, body)
    assert (answer.status, answer.code) == (400, "malformed_request")
    _still_serves(gate)


def test_gate_refuses_when_there_are_100000_headers(gate: GateProcess) -> None:
    head = f"GET {LIST} HTTP/1.1\r\nHost: {host(gate)}\r\n".encode()
    answer = exchange(gate.url, head, b"".join(b"x-%d: 1\r\n" % n for n in range(MANY_HEADERS)), b"\r\n")
    assert (answer.status, answer.code) == (431, "headers_too_large")
    _still_serves(gate)


@pytest.mark.parametrize("target", [UPDATE, "/v1/calls"])
def test_gate_refuses_before_reading_when_the_body_is_1_gib(gate: GateProcess, target: str) -> None:
    headers = {
        "Host": host(gate),
        "Authorization": f"Bearer {gate.token('triage-bot', 'triage')}",
        **JSON_TYPE,
        "Content-Length": str(GIB),
    }
    method = "PATCH" if target == UPDATE else "POST"
    answer = exchange(gate.url, request(method, target, headers), b"{", hold_open=True)
    assert (answer.status, answer.code) == (413, "body_too_large")
    _still_serves(gate)


def test_gate_refuses_when_a_chunked_body_grows_beyond_its_limit(gate: GateProcess) -> None:
    headers = {
        "Host": host(gate),
        "Authorization": f"Bearer {gate.token('triage-bot', 'triage')}",
        **JSON_TYPE,
        "Transfer-Encoding": "chunked",
    }
    chunk = b"%x\r\n" % CHUNK_BYTES + b" " * CHUNK_BYTES + b"\r\n"
    answer = exchange(gate.url, request("PATCH", UPDATE, headers), *[chunk] * (2 * MIB // CHUNK_BYTES), hold_open=True)
    assert (answer.status, answer.code) == (413, "body_too_large")
    _still_serves(gate)


def test_gate_refuses_when_the_target_is_too_long(gate: GateProcess) -> None:
    answer = _send(gate, "GET", f"{LIST}?sysparm_query={'a' * 9000}")
    assert (answer.status, answer.code) == (414, "uri_too_long")


# --- who asks -----------------------------------------------------------------------------------------------------
Forge = Callable[[GateProcess], str]


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _forged(gate: GateProcess, sign: Callable[[bytes], bytes], **header: object) -> str:
    """Good claims under any header, signed by any means."""
    head = {"typ": "JWT", "kid": issuer_kid(gate), **header}
    signed = b".".join(_encoded(json.dumps(part).encode()) for part in (head, good_claims(gate)))
    return (signed + b"." + _encoded(sign(signed))).decode()


def _published(gate: GateProcess) -> dict[str, str]:
    """The one key of the set that the gate's issuer publishes."""
    reference = str(read_config(gate.directory)["identity"]["issuers"][0]["jwks"]).removeprefix("file:")
    document = json.loads((gate.directory / reference).read_text(encoding="utf-8"))
    found: dict[str, str] = document["keys"][0]
    return found


def _hmac_with(spelling: Callable[[GateProcess], bytes]) -> Forge:
    """HMAC with the public key, which everybody has, in some spelling as the secret."""
    return lambda gate: _forged(gate, lambda text: hmac.digest(spelling(gate), text, hashlib.sha256), alg="HS256")


def _public_pem(gate: GateProcess) -> bytes:
    key = issuer_key(gate.directory).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public_raw(gate: GateProcess) -> bytes:
    key = issuer_key(gate.directory).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _public_jwk(gate: GateProcess) -> bytes:
    return json.dumps(_published(gate)).encode()


def _with_own_key(gate: GateProcess) -> str:
    return _forged(gate, Ed25519PrivateKey.generate().sign, alg="EdDSA")


def _with_own_key_in_the_header(gate: GateProcess) -> str:
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": _encoded(raw).decode()}
    return _forged(gate, key.sign, alg="EdDSA", jwk=jwk)


def _with_another_curve(gate: GateProcess) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(good_claims(gate), key, "ES256", headers={"kid": issuer_kid(gate)})


def _changed_claims(gate: GateProcess) -> str:
    head, _, signature = issued(gate).split(".")
    body = _encoded(json.dumps({**good_claims(gate), "roles": ["operator"]}).encode()).decode()
    return f"{head}.{body}.{signature}"


FORGERIES = [
    pytest.param(_with_own_key, id="another key"),
    pytest.param(_with_own_key_in_the_header, id="another key that the header brings along"),
    pytest.param(_with_another_curve, id="a key of another kind"),
    pytest.param(lambda gate: _forged(gate, lambda _: b"", alg="none"), id="alg none"),
    pytest.param(lambda gate: _forged(gate, lambda _: b"", alg="NONE"), id="alg none in capitals"),
    pytest.param(lambda gate: _forged(gate, lambda _: b"", alg=""), id="an empty alg"),
    pytest.param(lambda gate: _forged(gate, lambda _: b""), id="no alg"),
    pytest.param(lambda gate: _forged(gate, issuer_key(gate.directory).sign, alg=["EdDSA"]), id="a list for alg"),
    pytest.param(_hmac_with(_public_pem), id="HS256 with the public key"),
    pytest.param(_hmac_with(_public_raw), id="HS256 with the public key's bytes"),
    pytest.param(_hmac_with(_public_jwk), id="HS256 with the published key"),
    pytest.param(lambda gate: issued(gate).rpartition(".")[0] + ".", id="no signature"),
    pytest.param(lambda gate: issued(gate).rpartition(".")[0], id="two parts"),
    pytest.param(_changed_claims, id="changed claims"),
    pytest.param(lambda gate: "not.a.token", id="no token at all"),
    pytest.param(lambda gate: "a" * 8193, id="a token beyond its limit"),
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_gate_refuses_when_the_token_is_forged(gate: GateProcess, forge: Forge) -> None:
    answer = exchange(gate.url, request("GET", LIST, _bearer(gate, forge(gate))))
    assert (answer.status, answer.code) == (401, "identity_invalid")


NOW = int(time.time())
UNACCEPTED = [
    pytest.param({}, {"iat": NOW - 7200, "nbf": NOW - 7200, "exp": NOW - 3600}, "expired", id="expired"),
    pytest.param({}, {"aud": "another-gate"}, "audience", id="for another audience"),
    pytest.param({}, {"aud": ["another-gate", "a-third"]}, "audience", id="for several other audiences"),
    pytest.param({}, {"aud": None}, "audience", id="for nobody"),
    pytest.param({}, {"iss": "urn:somebody:else"}, "issuer", id="of another issuer"),
    pytest.param({}, {"iat": NOW + 3600, "nbf": NOW + 3600, "exp": NOW + 7200}, "not valid yet", id="not valid yet"),
    pytest.param({}, {"exp": None}, "exp", id="without an end"),
    pytest.param({}, {"exp": NOW + 365 * 86400}, "lives longer", id="good for a year"),
    pytest.param({}, {"tenant": None}, "tenant", id="without a tenant"),
    pytest.param({}, {"roles": "operator"}, "roles", id="with a text for roles"),
    pytest.param({"kid": "unknown"}, {}, "does not publish", id="signed with an unpublished key"),
    pytest.param({"crit": ["exp"]}, {}, "extension", id="with a critical extension"),
    pytest.param({"typ": "secevent+jwt"}, {}, "another type", id="of another type"),
]


@pytest.mark.parametrize(("header", "changes", "said"), UNACCEPTED)
def test_gate_refuses_when_the_token_is_signed_and_not_acceptable(
    gate: GateProcess, header: dict[str, object], changes: dict[str, object], said: str
) -> None:
    token = issued(gate, header, **changes)
    answer = exchange(gate.url, request("GET", LIST, _bearer(gate, token)))
    assert (answer.status, answer.code) == (401, "identity_invalid")
    assert said in answer.json()["detail"]
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


ALIKE = [
    pytest.param(issued, id="issued alike"),
    pytest.param(lambda gate: _forged(gate, issuer_key(gate.directory).sign, alg="EdDSA"), id="signed by the issuer"),
]


@pytest.mark.parametrize("make", ALIKE)
def test_gate_accepts_when_the_token_is_made_alike_and_nothing_is_wrong(gate: GateProcess, make: Forge) -> None:
    answer = exchange(gate.url, request("GET", LIST, _bearer(gate, make(gate))))
    assert answer.status == 200


def test_gate_refuses_when_there_is_no_token(gate: GateProcess) -> None:
    answer = exchange(gate.url, request("GET", LIST, {"Host": host(gate)}))
    assert (answer.status, answer.code) == (401, "identity_missing")
    assert "www-authenticate" in answer.headers


def test_gate_refuses_when_two_tokens_differ(gate: GateProcess) -> None:
    token, other = gate.token("triage-bot", "triage"), gate.token("dev", "developer")
    head = (
        f"GET {LIST} HTTP/1.1\r\nHost: {host(gate)}\r\n"
        f"Authorization: Bearer {token}\r\nAuthorization: Bearer {other}\r\n\r\n"
    )
    answer = exchange(gate.url, head.encode())
    assert (answer.status, answer.code) == (400, "malformed_request")
