"""Who asks: what a token must be, and every way in which it is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.identity import (
    ACTORS_MAX_COUNT,
    ROLES_MAX_COUNT,
    TOKEN_MAX_BYTES,
    IdentityVerifier,
    IssuerPolicy,
    NeedsKeys,
    Subject,
)
from gateway.errors import GateMisuse, Refusal
from tests.gateway.edge.issuers import (
    AUDIENCE,
    ED25519,
    ISSUER,
    KEYS,
    NOW,
    OTHER,
    RSA,
    StaticKeys,
    claims,
    encode_part,
    policy,
    token,
)


def verify(raw: str, *, now: float = NOW, **changes: Any) -> Subject:
    return IdentityVerifier({ISSUER: policy(**changes)}, StaticKeys()).verify(raw, now)


def refused(raw: str, **changes: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        verify(raw, **changes)
    assert (caught.value.code, caught.value.status) == ("identity_invalid", 401)
    assert raw not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("algorithm", sorted(KEYS))
def test_verify_gives_the_subject_when_signed_with(algorithm: str) -> None:
    subject = verify(token(algorithm, roles=["triage", "operator"], acr="high", amr=["pwd", "otp"], auth_time=NOW - 60))
    assert subject == Subject(
        id="ada",
        type="user",
        issuer=ISSUER,
        tenant="acme",
        workspace="ops",
        environment="prod",
        roles=("triage", "operator"),
        acr="high",
        amr=("pwd", "otp"),
        auth_time=NOW - 60,
        on_behalf_of=None,
        actors=(),
        people=True,
        expires_at=NOW + 600,
    )


def test_verify_gives_the_outermost_actor_when_delegated() -> None:
    subject = verify(token(act={"sub": "bot", "act": {"sub": "inner"}}))
    assert (subject.id, subject.on_behalf_of, subject.actors) == ("bot", "ada", ("bot", "inner"))
    assert (subject.type, subject.people) == ("agent", False)


def test_verify_gives_an_agent_when_the_issuer_has_no_people() -> None:
    subject = verify(token(), people=False)
    assert (subject.type, subject.people) == ("agent", False)


def test_verify_accepts_when_one_of_several_audiences_is_ours() -> None:
    assert verify(token(aud=["other", AUDIENCE])).id == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"iat": NOW - 100, "exp": NOW - 29}, id="expired within the leeway"),
        pytest.param({"nbf": NOW + 30}, id="not yet valid within the leeway"),
        pytest.param({"iat": NOW + 30}, id="issued ahead within the leeway"),
        pytest.param({"iat": NOW - 10, "exp": NOW - 10 + 86_400}, id="exactly the longest lifetime"),
        pytest.param({"exp": float(NOW + 600)}, id="a whole number written as a fraction"),
        pytest.param({"roles": None}, id="no roles"),
    ],
)
def test_verify_accepts_at_the_edge_when(changes: dict[str, Any]) -> None:
    assert verify(token(**changes)).id == "ada"


REFUSED_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"iat": NOW - 100, "exp": NOW - 30},
    "no expiry": {"exp": None},
    "expiry as text": {"exp": "tomorrow"},
    "expiry as a boolean": {"exp": True},
    "expiry beyond reason": {"exp": 1 << 41},
    "expiry with a fraction": {"exp": NOW + 0.5},
    "not yet valid": {"nbf": NOW + 31},
    "not before as text": {"nbf": "now"},
    "issued in the future": {"iat": NOW + 31},
    "no time of issue": {"iat": None},
    "lives a second too long": {"iat": NOW - 10, "exp": NOW - 10 + 86_401},
    "expires before it was issued": {"iat": NOW + 20, "exp": NOW + 10},
    "another audience": {"aud": "other"},
    "a list of other audiences": {"aud": ["other", "another"]},
    "no audience": {"aud": None},
    "a prefix of our audience": {"aud": AUDIENCE[:-1]},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "an issuer that is no text": {"iss": 7},
    "another tenant": {"tenant": "globex"},
    "every tenant": {"tenant": "*"},
    "no tenant": {"tenant": None},
    "a tenant that is no text": {"tenant": ["acme"]},
    "no workspace": {"workspace": None},
    "no environment": {"environment": None},
    "an empty workspace": {"workspace": ""},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject with a line end": {"sub": "ada\nroot"},
    "a subject with a direction mark": {"sub": "ada\u202e"},
    "a subject that is too long": {"sub": "a" * 257},
    "a role that the issuer may not grant": {"roles": ["triage", "approver"]},
    "roles as text": {"roles": "triage"},
    "a role that is no text": {"roles": [1]},
    "too many roles": {"roles": ["triage"] * (ROLES_MAX_COUNT + 1)},
    "amr as text": {"amr": "pwd"},
    "acr as a number": {"acr": 1},
    "auth_time as text": {"auth_time": "now"},
    "an actor that is no object": {"act": "bot"},
    "an actor without a name": {"act": {}},
    "an actor that is a list": {"act": [{"sub": "bot"}]},
    "an inner actor that is no object": {"act": {"sub": "bot", "act": 1}},
}


@pytest.mark.parametrize("changes", REFUSED_CLAIMS.values(), ids=REFUSED_CLAIMS.keys())
def test_verify_refuses_when_a_claim_is(changes: dict[str, Any]) -> None:
    refused(token(**changes))


def test_verify_refuses_when_act_is_null() -> None:
    body = json.dumps({**claims(), "act": None}).encode()
    refused(sign(encode_part({"alg": "EdDSA", "kid": "ed"}), encode_part(body)))


def test_verify_refuses_when_actors_nest_too_deep() -> None:
    act: dict[str, Any] = {"sub": "innermost"}
    for _ in range(ACTORS_MAX_COUNT - 1):
        act = {"sub": "bot", "act": act}
    assert len(verify(token(act=act)).actors) == ACTORS_MAX_COUNT
    refused(token(act={"sub": "bot", "act": act}))


def sign(header: str, body: str) -> str:
    signature = ED25519.sign(f"{header}.{body}".encode())
    return f"{header}.{body}.{encode_part(signature)}"


def hmac_token(secret: bytes, header: dict[str, Any]) -> str:
    head, body = encode_part(header), encode_part(claims())
    signature = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{encode_part(signature)}"


PUBLIC_PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

FORGED = {
    "alg none": f"{encode_part({'alg': 'none'})}.{encode_part(claims())}.",
    "alg None in another case": f"{encode_part({'alg': 'NoNe', 'kid': 'ed'})}.{encode_part(claims())}.",
    "no alg": f"{encode_part({'kid': 'ed'})}.{encode_part(claims())}.",
    "alg that is no text": f"{encode_part({'alg': ['EdDSA']})}.{encode_part(claims())}.",
    "HS256 with the public key": hmac_token(PUBLIC_PEM, {"alg": "HS256", "kid": "rsa"}),
    "RS256 named, HMAC made with the public key": hmac_token(PUBLIC_PEM, {"alg": "RS256", "kid": "rsa"}),
    "an empty signature": ".".join(token().split(".")[:2]) + ".",
    "a signature by another key": token(key=OTHER),
    "a key of its own in the header": token(key=OTHER, headers={"jwk": {"kty": "OKP"}}),
    "a signature of another token": ".".join([*token().split(".")[:2], token(sub="eve").split(".")[2]]),
    "claims of another token": ".".join([token().split(".")[0], encode_part(claims(sub="eve")), token().split(".")[2]]),
    "an unknown critical extension": token(headers={"crit": ["x"], "x": 1}),
    "an unencoded payload": sign(encode_part({"alg": "EdDSA", "kid": "ed", "b64": False}), encode_part(claims())),
    "another type of token": token(headers={"typ": "dpop+jwt"}),
    "a type that is no text": sign(encode_part({"alg": "EdDSA", "kid": "ed", "typ": 1}), encode_part(claims())),
    "a kid that is no text": sign(encode_part({"alg": "EdDSA", "kid": 1}), encode_part(claims())),
    "a kid that is too long": token(headers={"kid": "k" * 257}),
    "duplicate claims": sign(encode_part({"alg": "EdDSA", "kid": "ed"}), encode_part(b'{"sub":"a","sub":"b"}')),
    "duplicate header members": sign(encode_part(b'{"alg":"none","alg":"EdDSA"}'), encode_part(claims())),
    "claims that are no object": sign(encode_part({"alg": "EdDSA", "kid": "ed"}), encode_part([1])),
    "claims that are no JSON": sign(encode_part({"alg": "EdDSA", "kid": "ed"}), encode_part(b"{")),
    "one part": "abc",
    "two parts": "a.b",
    "four parts": "a.b.c.d",
    "five parts, as of an encrypted token": "a.b.c.d.e",
    "empty parts": "..",
    "no base64": "!!.!!.!!",
    "text that is not ASCII": "ä.ö.ü",
    "a lone surrogate": "\ud800.a.b",
    "nothing": "",
    "too long": "a" * (TOKEN_MAX_BYTES + 1),
}


@pytest.mark.parametrize("raw", FORGED.values(), ids=FORGED.keys())
def test_verify_refuses_when_the_token_is(raw: str) -> None:
    with pytest.raises(Refusal) as caught:
        verify(raw)
    assert caught.value.code == "identity_invalid"


def test_verify_refuses_when_the_algorithm_is_not_the_issuers() -> None:
    refused(token("RS256"), algorithms=("EdDSA",))


def test_verify_needs_keys_when_the_kid_is_unknown() -> None:
    with pytest.raises(NeedsKeys) as caught:
        verify(token(headers={"kid": "rotated"}))
    assert caught.value.issuer == ISSUER


def test_verify_needs_keys_when_the_kid_is_of_another_type() -> None:
    with pytest.raises(NeedsKeys):
        verify(token(headers={"kid": "rsa"}))


def test_verify_accepts_without_kid_when_only_one_key_fits() -> None:
    assert verify(sign(encode_part({"alg": "EdDSA"}), encode_part(claims()))).id == "ada"


def test_verify_refuses_roles_when_the_issuer_lists_none() -> None:
    refused(token(), roles=None)


def test_verify_accepts_any_tenant_and_role_when_the_issuer_is_for_development() -> None:
    raw = token(tenant="anything", roles=["whatever"])
    assert verify(raw, development=True, tenants=("*",), roles=None).tenant == "anything"


def test_verify_refuses_when_a_development_token_names_no_tenant() -> None:
    refused(token(tenant=None), development=True, tenants=("*",), roles=None)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"tenants": ("*",)}, id="every tenant without development"),
        pytest.param({"algorithms": ("HS256",)}, id="a shared secret"),
        pytest.param({"algorithms": ("none",)}, id="no algorithm at all"),
        pytest.param({"algorithms": ()}, id="an empty list"),
    ],
)
def test_issuer_policy_is_misuse_when(changes: dict[str, Any]) -> None:
    with pytest.raises(GateMisuse):
        policy(**changes)


class TestCache:
    """The newest tokens are remembered, and never longer than they hold."""

    def setup_method(self) -> None:
        self.keys = StaticKeys()
        self.verifier = IdentityVerifier({ISSUER: policy()}, self.keys, cache_max_entries=2)

    def test_verify_asks_for_no_key_when_the_token_is_known(self) -> None:
        raw = token()
        assert self.verifier.verify(raw, NOW) is self.verifier.verify(raw, NOW + 1)
        assert self.keys.asked == 1

    def test_verify_refuses_when_a_known_token_expires(self) -> None:
        raw = token()
        self.verifier.verify(raw, NOW)
        with pytest.raises(Refusal):
            self.verifier.verify(raw, NOW + 630)

    def test_verify_refuses_when_the_clock_goes_back_before_a_known_token(self) -> None:
        raw = token()
        self.verifier.verify(raw, NOW)
        with pytest.raises(Refusal):
            self.verifier.verify(raw, NOW - 100)

    def test_verify_asks_again_when_the_keys_changed(self) -> None:
        raw = token()
        self.verifier.verify(raw, NOW)
        self.keys.current += 1
        self.verifier.verify(raw, NOW)
        assert self.keys.asked == 2

    def test_verify_forgets_the_oldest_when_the_cache_is_full(self) -> None:
        first, second, third = (token(sub=name) for name in ("a", "b", "c"))
        for raw in (first, second, first, third, first, second):
            self.verifier.verify(raw, NOW)
        assert self.keys.asked == 4  # second was pushed out by third

    def test_verify_tells_tokens_apart_when_only_the_signature_differs(self) -> None:
        raw = token()
        self.verifier.verify(raw, NOW)
        flipped = raw[:-2] + ("AA" if not raw.endswith("AA") else "BB")
        with pytest.raises(Refusal):
            self.verifier.verify(flipped, NOW)


@given(st.binary(max_size=120), st.binary(max_size=200), st.binary(max_size=64))
def test_verify_only_ever_refuses_when_fed_anything(header: bytes, body: bytes, signature: bytes) -> None:
    raw = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, body, signature))
    with pytest.raises(Refusal):
        verify(raw)


@given(st.text(max_size=100))
def test_verify_only_ever_refuses_when_fed_any_text(raw: str) -> None:
    with pytest.raises(Refusal):
        verify(raw)


def test_verify_refuses_when_no_issuer_is_configured() -> None:
    with pytest.raises(Refusal):
        IdentityVerifier({}, StaticKeys()).verify(token(), NOW)


def test_issuer_policy_keeps_its_defaults_when_made_plainly() -> None:
    plain = IssuerPolicy(ISSUER, AUDIENCE, ("EdDSA",), ("acme",))
    assert (plain.development, plain.people, plain.leeway_seconds, plain.max_lifetime_seconds) == (
        False,
        False,
        30,
        86_400,
    )
