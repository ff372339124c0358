"""Mutations of the token, of the signature file, of properly signed content, and of the archive around them."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.integration.mutations import CLAIMS, MEMBERS, Change, flip, layer
from tests.integration.signed_drafts import SIGNATURES, Draft, decode, encode, es256, hs256

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256."""


def _header(**changes: Any) -> Change:
    def change(draft: Draft) -> None:
        draft.header.update(changes)
        draft.header = {name: value for name, value in draft.header.items() if value is not None}

    return change


def _field(name: str, value: Any) -> Change:
    return lambda draft: setattr(draft, name, value)


def _token(how: Callable[[str], str]) -> Change:
    return _field("token", how)


def _part(number: int, how: Callable[[str], str]) -> Change:
    """One of the token's three parts put through ``how``, behind the signature's back."""

    def put(token: str) -> str:
        parts = token.split(".")
        parts[number] = how(parts[number])
        return ".".join(parts)

    return _token(put)


def _document(how: Callable[[str], Any]) -> Change:
    return _field("document", lambda token: json.dumps(how(token)).encode())


def _document_text(template: str) -> Change:
    return _field("document", lambda token: template.replace("TOKEN", token).encode())


def _unsigned(draft: Draft) -> None:
    draft.header["alg"] = "none"
    draft.sign = lambda signed: b""


def _shared_secret(draft: Draft) -> None:
    draft.header["alg"] = "HS256"
    draft.sign = hs256(draft.public_pem)


def _signed_by(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm, alg: str) -> Change:
    def change(draft: Draft) -> None:
        draft.header["alg"] = alg
        draft.sign = es256(ec.generate_private_key(curve), digest)

    return change


def _signature(how: Callable[[int, int], bytes]) -> Change:
    def change(draft: Draft) -> None:
        right = draft.sign

        def sign(signed: bytes) -> bytes:
            raw = right(signed)
            return how(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))

        draft.sign = sign

    return change


def _two_signatures(second: Callable[[str], str]) -> Change:
    return _document(lambda token: {"signatures": [token, second(token)]})


def _other_signers(token: str) -> str:
    head = token.rpartition(".")[0]
    return f"{head}.{encode(es256(ec.generate_private_key(ec.SECP256R1()))(head.encode()))}"


def _indented(part: str) -> str:
    return encode(json.dumps(json.loads(decode(part)), indent=1).encode())


def _ended(raw: bytes) -> bytes:
    """A tar without the two empty blocks at its end."""
    files = raw.rstrip(b"\0")
    return files + bytes(-len(files) % 512)


def _spare_bits(part: str) -> str:
    """The last character's unused bits set: other text, same bytes."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    changed = part[:-1] + letters[letters.index(part[-1]) ^ 1]
    return changed if decode(changed) == decode(part) else part[:-1] + letters[letters.index(part[-1]) ^ 2]


TOKENS = layer(
    "token",
    ("the header says alg none and nothing is signed", _unsigned),
    ("the header says alg none over the right signature", _header(alg="none"), "one spelling"),
    ("the header says HS256, signed with the public key as the secret", _shared_secret),
    ("the header says HS256 over the right signature", _header(alg="HS256"), "one spelling"),
    ("the header says RS256 over the right signature", _header(alg="RS256"), "one spelling"),
    ("the header says ES384 over the right signature", _header(alg="ES384"), "one spelling"),
    ("the header says es256", _header(alg="es256"), "one spelling"),
    ("the header says no algorithm", _header(alg=None), "one spelling"),
    ("another key of the same kind signed", _signed_by(ec.SECP256R1(), hashes.SHA256(), "ES256")),
    ("a key on another curve signed", _signed_by(ec.SECP384R1(), hashes.SHA384(), "ES384")),
    ("a key on another curve signed and says ES256", _signed_by(ec.SECP384R1(), hashes.SHA256(), "ES256")),
    ("the signature is zero", _signature(lambda r, s: bytes(64))),
    ("the signature is the group's order twice", _signature(lambda r, s: ORDER.to_bytes(32, "big") * 2)),
    ("the signature is in DER", _signature(encode_dss_signature)),
    ("the signature's s is mirrored", _signature(lambda r, s: r.to_bytes(32, "big") + (ORDER - s).to_bytes(32, "big"))),
    ("the signature's halves are swapped", _signature(lambda r, s: s.to_bytes(32, "big") + r.to_bytes(32, "big"))),
    ("the signature lacks its last byte", _signature(lambda r, s: (r.to_bytes(32, "big") + s.to_bytes(32, "big"))[:-1])),
    ("the signature is a byte longer", _signature(lambda r, s: r.to_bytes(32, "big") + s.to_bytes(32, "big") + b"\0")),
    ("the signature is empty", _part(2, lambda part: "")),
    ("one bit of the signature is flipped", _part(2, lambda part: encode(flip(decode(part))))),
    ("one bit of the payload is flipped", _part(1, lambda part: encode(flip(decode(part))))),
    ("the header is written again in another order", _part(0, _indented)),
    ("the header names another key", _header(kid="other"), "one key id"),
    ("the header names no key", _header(kid=None)),
    ("the header's key id is a number", _header(kid=1), "known header"),
    ("the header has another type", _header(typ="JOSE")),
    ("the header names a critical extension", _header(crit=["exp"], exp=1), "known header"),
    ("the header brings its own key", _header(jwk={"kty": "oct", "k": "AA"}), "known header"),
    ("the header brings an address for keys", _header(jku="keys.example"), "known header"),
    ("the header says that the payload is not encoded", _header(b64=False, crit=["b64"]), "known header"),
    ("the header names two algorithms", _field("header_text", lambda text: text.replace("{", '{"alg":"none",', 1)), "strict JSON"),
    ("the header is not JSON", _field("header_text", lambda text: "x"), "strict JSON"),
    ("the token has two parts", _token(lambda token: token.rpartition(".")[0])),
    ("the token has four parts", _token(lambda token: token + ".x")),
    ("the token is empty", _token(lambda token: "")),
    ("the token ends in a line break", _token(lambda token: token + "\n")),
    ("the token begins with a space", _token(lambda token: " " + token)),
    ("the signature is padded", _part(2, lambda part: part + "==")),
    ("the signature has spare bits set", _part(2, _spare_bits), "one spelling"),
    ("the signature is in plain base64", _signature(lambda r, s: b"\xfb\xff" * 32)),
)  # fmt: skip

DOCUMENTS = layer(
    "signature file",
    ("there is none", _field("document", None)),
    ("it is empty", _document_text("")),
    ("it is an empty object", _document_text("{}")),
    ("it is a list", _document_text('["TOKEN"]')),
    ("it holds no signature", _document_text('{"signatures": []}')),
    ("it holds null", _document_text('{"signatures": null}')),
    ("it holds a text instead of a list", _document_text('{"signatures": "TOKEN"}')),
    ("it holds the same signature twice", _two_signatures(lambda token: token)),
    ("it holds a second signer's signature", _two_signatures(_other_signers)),
    ("it holds a wrong signature before the right one", _document(lambda token: {"signatures": [_other_signers(token), token]})),
    ("it holds a JWS in JSON", _document(lambda token: {"signatures": [{"payload": token.split(".")[1]}]})),
    ("it names OPA's own plugin", _document_text('{"signatures": ["TOKEN"], "plugin": "_default"}')),
    ("it names an empty plugin", _document_text('{"signatures": ["TOKEN"], "plugin": ""}'), "checked signature file"),
    ("it names another plugin", _document_text('{"signatures": ["TOKEN"], "plugin": "other"}')),
    ("it has a member nobody knows", _document_text('{"signatures": ["TOKEN"], "x": 1}'), "checked signature file"),
    ("it spells its member in capitals", _document_text('{"SIGNATURES": ["TOKEN"]}'), "checked signature file"),
    ("it has its member twice, the second right", _document_text('{"signatures": ["x.y.z"], "signatures": ["TOKEN"]}'), "strict JSON"),
    ("it has its member twice, the second wrong", _document_text('{"signatures": ["TOKEN"], "signatures": ["x.y.z"]}')),
    ("it is indented", _document_text('{\n  "signatures": [\n    "TOKEN"\n  ]\n}\n')),
    ("it is followed by a letter", _document_text('{"signatures": ["TOKEN"]}x'), "strict JSON"),
    ("it is followed by another document", _document_text('{"signatures": ["TOKEN"]}{"signatures": []}'), "strict JSON"),
    ("it begins with a byte order mark", _document_text('\ufeff{"signatures": ["TOKEN"]}')),
)  # fmt: skip


def _with(name: str, content: bytes) -> Change:
    """A file more, properly signed."""
    return lambda draft: draft.add(name, content, listed=True)


def _data(content: bytes, hashed: bytes | None = None) -> Change:
    """A data file of this text, signed with the hash of ``hashed`` where a reader would see that instead."""

    def change(draft: Draft) -> None:
        name = draft.named("data.json")
        shape = b'{"chains":%b}' if name == "data.json" else b"%b"  # OPA puts all data into one file
        digest = None if hashed is None else hashlib.sha256(shape % hashed).hexdigest()
        draft.replace(name, shape % content, digest)

    return change


def _manifest(how: Callable[[dict[str, Any]], Any]) -> Change:
    def change(draft: Draft) -> None:
        document = json.loads(draft.members[".manifest"])
        how(document)
        draft.replace(".manifest", json.dumps(document).encode())

    return change


def _policy(content: bytes) -> Change:
    return lambda draft: draft.replace(draft.named("shop.rego"), content)


MODULE = [{"entrypoint": "tidegate/decision", "module": "/policy.wasm"}]

SIGNED = layer(
    "signed content",
    ("a data file repeats a member", _data(b'{"a": 1, "a": 2}', b'{"a":2}'), "strict JSON"),
    ("a data file has a number of 20 digits", _data(b'{"a": 12345678901234567890}'), "strict JSON"),
    ("a data file has 2 to the 53rd", _data(b'{"a": 9007199254740992}'), "strict JSON"),
    ("a data file has a lone surrogate", _data(b'{"a": "\\ud800"}', '{"a":"\ufffd"}'.encode()), "strict JSON"),
    ("a data file is not UTF-8", _data(b'{"a": "\xff"}', '{"a":"\ufffd"}'.encode()), "strict JSON"),
    ("a data file has 200 levels", _data(b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"), "limits"),
    ("a data file is a list", _data(b"[1]")),
    ("data stands where a policy's package does", _with("policies/shop/data.json", b'{"deny": []}'), "own data only"),
    ("data stands outside the roots", _with("elsewhere/data.json", b"{}")),
    ("a README rides along", _with("README.md", b"hello"), "closed list"),
    ("YAML data rides along", _with("limits2/data.yaml", b"a: 1")),
    ("a plan rides along", _with("plan.json", b"{}"), "closed list"),
    ("a second manifest rides along", _with("policies/.manifest", b"{}")),
    ("a second module rides along", _with("policies/policy.wasm", b"\0asm\1\0\0\0"), "closed list"),
    ("a patch rides along", _with("patch.json", b'{"data": []}'), "no deltas"),
    ("the manifest has a member nobody knows", _manifest(lambda m: m.update(extra=1)), "closed manifest"),
    ("the manifest names a module to run", _manifest(lambda m: m.update(wasm=MODULE))),
    ("the manifest's revision is a number", _manifest(lambda m: m.update(revision=1))),
    ("the manifest's roots are a text", _manifest(lambda m: m.update(roots="policies"))),
    ("the manifest's roots overlap", _manifest(lambda m: m["roots"].append("policies/shop"))),
    ("the manifest's roots leave out a policy", _manifest(lambda m: m["roots"].remove("policies"))),
    ("the manifest says Rego version 0", _manifest(lambda m: m.update(rego_version=0))),
    ("the manifest says Rego version 1.0", _manifest(lambda m: m.update(rego_version=1.0))),
    ("the manifest's metadata is a list", _manifest(lambda m: m.update(metadata=[]))),
    ("a policy does not parse", _policy(b"package policies.shop\n\nallow if {\n"), "Rego compiles"),
    ("a policy calls what there is not", _policy(b"package policies.shop\n\nallow if nothing(1)\n"), "Rego compiles"),
    ("a policy is of Rego version 0", _policy(b"package policies.shop\n\nallow { true }\n"), "Rego compiles"),
    ("a policy has no package", _policy(b"allow := 1\n")),
    ("a policy declares a package outside the roots", _policy(b"package other\n\nallow := 1\n")),
)  # fmt: skip


def _member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "") -> Change:
    """A member that the tar holds beside the others."""

    def change(draft: Draft) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        draft.more.append((info, content))

    return change


def _again(end: str, how: Callable[[bytes], bytes]) -> Change:
    def change(draft: Draft) -> None:
        name = draft.named(end)
        draft.more.append((tarfile.TarInfo(name), how(draft.members[name])))

    return change


def _renamed(how: Callable[[str], str]) -> Change:
    """A policy's name in the tar, and in the token's list, put through ``how``."""

    def change(draft: Draft) -> None:
        name = draft.named("shop.rego")
        draft.members = {how(key) if key == name else key: value for key, value in draft.members.items()}
        draft.entry(name)["name"] = how(name)

    return change


def _renamed_in_tar(how: Callable[[str], str]) -> Change:
    def change(draft: Draft) -> None:
        name = draft.named("shop.rego")
        draft.members = {how(key) if key == name else key: value for key, value in draft.members.items()}

    return change


def _twin(draft: Draft) -> None:
    draft.add(draft.named("shop.rego").replace("shop.rego", "SHOP.rego"), b"package policies.shop\n", listed=True)


def _long_name(draft: Draft) -> None:
    draft.form = tarfile.PAX_FORMAT
    draft.add(f"policies/{'x' * 120}.rego", b"package policies.x\n", listed=True)


def _many(draft: Draft) -> None:
    for number in range(4200):
        draft.add(f"policies/many/p{number}.rego", b"package policies.many\n", listed=True)


ARCHIVES = layer(
    "archive",
    ("it is empty", _field("archive", lambda raw: b"")),
    ("it is not compressed", _field("archive", gzip.decompress)),
    ("it is not a tar", _field("archive", lambda raw: gzip.compress(b"hello"))),
    ("half of it is missing", _field("archive", lambda raw: raw[: len(raw) // 2])),
    ("its last byte is missing", _field("archive", lambda raw: raw[:-1]), "plain archive"),
    ("its gzip checksum is wrong", _field("archive", lambda raw: flip(raw, -8)), "plain archive"),
    ("its gzip length is wrong", _field("archive", lambda raw: flip(raw, -1)), "plain archive"),
    ("one bit of the compressed data is flipped", _field("archive", lambda raw: flip(raw, 200))),
    ("text follows the gzip file", _field("archive", lambda raw: raw + b"hello"), "plain archive"),
    ("another gzip file follows", _field("archive", lambda raw: raw + raw), "plain archive"),
    ("the tar lacks its end mark", _field("tar", _ended), "plain archive"),
    ("bytes follow the tar's end", _field("tar", lambda raw: raw + b"hello"), "plain archive"),
    ("a whole tar follows the tar's end", _field("tar", lambda raw: raw + raw), "plain archive"),
    ("a header's checksum is wrong", _field("tar", lambda raw: flip(raw, 150))),
    ("the tar is cut inside a file", _field("tar", lambda raw: raw[:700])),
    ("its members come in reverse", _field("order", lambda names: names[::-1])),
    ("its signature file comes first", _field("order", lambda names: [names[-1], *names[:-1]])),
    ("it is a GNU tar", _field("form", tarfile.GNU_FORMAT)),
    ("it is a pax tar with a long name", _long_name, "plain archive"),
    ("it holds a folder", _member("policies", kind=tarfile.DIRTYPE), "plain archive"),
    ("it holds a symbolic link", _member("policies/link.rego", kind=tarfile.SYMTYPE, target="shop/shop.rego"), "plain archive"),
    ("it holds a symbolic link out of it", _member("chains/link/data.json", kind=tarfile.SYMTYPE, target="../../x"), "plain archive"),
    ("it holds a hard link", _member("policies/link.rego", kind=tarfile.LNKTYPE, target="policies/shop/shop.rego"), "plain archive"),
    ("it holds a device", _member("policies/device.rego", kind=tarfile.CHRTYPE), "plain archive"),
    ("it holds a pipe", _member("policies/pipe.rego", kind=tarfile.FIFOTYPE), "plain archive"),
    ("a policy is in it twice alike", _again("shop.rego", lambda raw: raw)),
    ("a policy is in it twice, the second changed", _again("shop.rego", lambda raw: raw + b"#")),
    ("a data file is in it twice alike", _again("data.json", lambda raw: raw)),
    ("the signature file is in it twice", _member(SIGNATURES, b'{"signatures": []}')),
    ("a second policy differs in capitals alone", _twin, "plain archive"),
    ("names begin with a slash", _renamed_in_tar(lambda name: "/" + name)),
    ("a name begins with two slashes", _renamed_in_tar(lambda name: "//" + name)),
    ("a name begins with ./", _renamed_in_tar(lambda name: "./" + name)),
    ("a signed name begins with ./", _renamed(lambda name: "./" + name), "plain archive"),
    ("a signed name leaves the archive by ..", _renamed(lambda name: "../" + name), "plain archive"),
    ("a signed name takes a way round by ..", _renamed(lambda name: "policies/../" + name), "plain archive"),
    ("a signed name has a backslash", _renamed(lambda name: name.replace("/", "\\")), "plain archive"),
    ("a signed name has a space", _renamed(lambda name: name.replace("shop.rego", "sh op.rego")), "plain archive"),
    ("a signed name has a letter beyond ASCII", _renamed(lambda name: name.replace("shop.rego", "sh\u00f6p.rego")), "plain archive"),
    ("a signed name has two slashes inside", _renamed(lambda name: name.replace("/", "//", 1)), "plain archive"),
    ("it holds more files than allowed", _many, "limits"),
    ("it holds a file of 33 MiB", _with("policies/shop/long.rego", b"package policies.shop\n" + b"\n" * (33 << 20)), "limits"),
)  # fmt: skip

MUTATIONS = [*MEMBERS, *CLAIMS, *TOKENS, *DOCUMENTS, *SIGNED, *ARCHIVES]
