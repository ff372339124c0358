"""Every way to spoil a signed bundle that is tried on both readers, each a sentence.

A mutation changes a draft in place. Where we are meant to be stricter than OPA, the mutation names the rule; the rules
and their reasons are in ``RULES``. Mutations of one layer stand together: members, token, signature file, archive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.integration.signed_drafts import Draft, encode

Change = Callable[[Draft], Any]

RULES = {
    "one spelling": (
        "What says the same in two spellings (hashes in capitals, base64 with spare bits set, a token header that "
        "names another algorithm) lets two readers see two things. One spelling is accepted."
    ),
    "SHA-256 only": "OPA also takes MD5 and SHA-1, which can be forged, and the longer SHA-2. One hash is accepted.",
    "known header": "RFC 7515: an extension that is not understood must not be passed over; OPA passes over it.",
    "one key id": "Header and payload must not name different keys.",
    "strict JSON": (
        "Duplicate member names, numbers beyond a double's whole numbers, lone surrogates and text after the document "
        "are read differently by different parsers."
    ),
    "our claims": "Name, audience, sequence, epoch and time of the claims are checked; OPA ignores them.",
    "closed list": "A file that has no place in a bundle is refused, even when it is signed.",
    "closed manifest": "An unknown member of the manifest may mean something to another reader.",
    "no deltas": "A `patch.json` changes what a bundle holds instead of replacing it. It is refused, signed or not.",
    "own data only": "Data among packages and policies could replace rules; it is refused.",
    "plain archive": (
        "One gzip member holding POSIX ustar regular files with plain names, each once, ended by its end mark: what two "
        "tar readers understand differently is refused."
    ),
    "limits": "Size, number and compression ratio are limited before anything is believed.",
    "checked signature file": "One signature file at the root, with nothing unexpected in it; OPA passes over others and over more.",
}
"""Why we refuse what OPA loads."""

OPA_RULES = {
    "listed names": "OPA compares the names of the signed list as they stand; here one leading slash is dropped, as in the tar.",
    "issuer": "OPA reads the issuer and wants a text; nothing here reads it.",
    "Rego compiles": (
        "OPA compiles the Rego while it loads. Here that was done when the bundle was built and is done again by every "
        "`bundle sign` and `bundle verify --rebuild`; the gate runs the module that came out, never the Rego."
    ),
}
"""Why OPA refuses what our signature check lets pass."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way to spoil a bundle."""

    layer: str
    name: str
    change: Change
    rule: str | None = None
    needs: str = ""
    """The end of a member's name without which there is nothing to spoil."""


def layer(name: str, *rows: tuple[Any, ...]) -> list[Mutation]:
    """The mutations of one layer, from a table of what is spoilt, how, by which rule, and what it needs."""
    return [Mutation(name, *row) for row in rows]


def flip(raw: bytes, at: int | None = None) -> bytes:
    """The lowest bit of one byte, in the middle unless told, is the other one."""
    index = len(raw) // 2 if at is None else at % len(raw)
    return raw[:index] + bytes((raw[index] ^ 1,)) + raw[index + 1 :]


def _edit(end: str, how: Callable[[bytes], bytes]) -> Change:
    """A member changed behind the signature's back."""

    def change(draft: Draft) -> None:
        name = draft.named(end)
        draft.members[name] = how(draft.members[name])

    return change


def _backwards(raw: bytes) -> bytes:
    """The same document with every object's members in reverse."""
    return json.dumps(json.loads(raw, object_pairs_hook=lambda pairs: dict(reversed(pairs)))).encode()


def _drop(end: str) -> Change:
    return lambda draft: draft.members.pop(draft.named(end))


def _rename(end: str, how: Callable[[str], str], *, signed: bool = False) -> Change:
    def change(draft: Draft) -> None:
        name = draft.named(end)
        draft.members = {how(key) if key == name else key: value for key, value in draft.members.items()}
        if signed:
            draft.entry(name)["name"] = how(name)

    return change


def _add(name: str, content: bytes, *, listed: bool = False) -> Change:
    return lambda draft: draft.add(name, content, listed=listed)


def _swap_members(draft: Draft) -> None:
    left, right = draft.named("data.json"), draft.named("shop.rego")
    draft.members[left], draft.members[right] = draft.members[right], draft.members[left]


def _swap_data(draft: Draft) -> None:
    left, right = (name for name in draft.members if name.endswith("/data.json"))
    draft.members[left], draft.members[right] = draft.members[right], draft.members[left]


def _move(draft: Draft) -> None:
    draft.members["policies/other/other.rego"] = draft.members.pop(draft.named("shop.rego"))


KINDS = {
    "the manifest": ".manifest",
    "a policy": "shop.rego",
    "the library": "decision.rego",
    "a data file": "data.json",
    "the compiled module": "policy.wasm",
    "a probe": "stranger.json",
}

MEMBERS = layer(
    "members",
    ("nothing", lambda draft: None),
    *((f"one bit of {kind} is flipped", _edit(end, flip), None, end) for kind, end in KINDS.items()),
    *((f"{kind} is missing", _drop(end), None, end) for kind, end in KINDS.items()),
    *(
        (f"{kind} is empty", _edit(end, lambda raw: b""), None, end) for kind, end in KINDS.items()
    ),
    *(
        (f"{kind} is renamed", _rename(end, lambda name: f"{name}x"), None, end)
        for kind, end in KINDS.items()
    ),
    ("a policy ends in one more line break", _edit("shop.rego", lambda raw: raw + b"\n")),
    ("a policy's line breaks are CR LF", _edit("shop.rego", lambda raw: raw.replace(b"\n", b"\r\n"))),
    ("a policy loses its last byte", _edit("shop.rego", lambda raw: raw[:-1])),
    ("a policy lies in another folder", _move),
    ("a policy's name is in capitals", _rename("shop.rego", lambda name: name.upper())),
    ("data and a policy are swapped", _swap_members),
    ("two data files are swapped", _swap_data, None, "connectors/shop/data.json"),
    ("an unlisted policy is added", _add("policies/evil/evil.rego", b"package policies.evil\n")),
    ("an unlisted data file is added", _add("windows/data.json", b"{}")),
    ("an unlisted YAML data file is added", _add("windows/data.yaml", b"a: 1")),
    ("an unlisted README is added", _add("README.md", b"hello")),
    ("an unlisted hidden file is added", _add(".hidden", b"hello")),
    ("an unlisted empty file is added", _add("policies/shop/empty.rego", b"")),
    ("an unlisted signature file lies in a folder", _add("policies/.signatures.json", b"{}"), "checked signature file"),
    ("an unlisted manifest lies in a folder", _add("policies/.manifest", b"{}")),
    ("an unlisted test is added", _add("policies/shop/shop_test.rego", b"package policies.shop_test\n")),
    ("an unlisted plan is added", _add("plan.json", b"{}")),
    ("an unlisted patch makes it a delta", _add("patch.json", b'{"data": []}')),
    ("the manifest has other white space", _edit(".manifest", lambda raw: raw.replace(b":", b" : \n\t"))),
    ("a data file has other white space", _edit("data.json", lambda raw: b"\n " + raw.replace(b",", b" ,\r\n") + b"\n")
    ),
    ("a data file spells a letter as an escape", _edit("data.json", lambda raw: raw.replace(b"approver", b"\\u0061pprover"))
    ),
    ("a data file's members are in another order",
        _edit("data.json", _backwards),
    ),
    ("a data file spells 1 as 1.0", _edit("data.json", lambda raw: raw.replace(b'"quorum":1', b'"quorum":1.0'))),
    ("a data file spells 1 as 1e0", _edit("data.json", lambda raw: raw.replace(b'"quorum":1', b'"quorum":1e0'))),
    ("a data file begins with a byte order mark", _edit("data.json", lambda raw: b"\xef\xbb\xbf" + raw)),
    ("a data file is followed by another document", _edit("data.json", lambda raw: raw + b" {}")),
    ("a data file is followed by a letter", _edit("data.json", lambda raw: raw + b" x")),
    ("a data file repeats a member with the same value",
        _edit("data.json", lambda raw: raw.replace(b'"one-approver"', b'"one-approver":1,"one-approver"')),
        "strict JSON",
    ),
    ("a data file repeats a member in another spelling",
        _edit("data.json", lambda raw: raw.replace(b'"one-approver"', b'"\\u006fne-approver":1,"one-approver"')),
        "strict JSON",
    ),
    ("the manifest repeats its roots, the second the signed ones",
        _edit(".manifest", lambda raw: raw.replace(b'"roots"', b'"roots":["policies"],"roots"')),
        "strict JSON",
    ),
    ("the manifest is followed by another document", _edit(".manifest", lambda raw: raw + b"{}"), "strict JSON"),
    ("the manifest is followed by a letter", _edit(".manifest", lambda raw: raw + b"x"), "strict JSON"),
)  # fmt: skip


def _claim(**changes: Any) -> Change:
    """Claims replaced (``None`` removes one); signed again."""

    def change(draft: Draft) -> None:
        draft.payload.update(changes)
        draft.payload = {name: value for name, value in draft.payload.items() if value is not None}

    return change


def _shifted(**changes: int) -> Change:
    """Instants counted from the signing."""
    return lambda draft: draft.payload.update(
        {name: draft.payload["iat"] + seconds for name, seconds in changes.items()}
    )


def _entry(**changes: Any) -> Change:
    def change(draft: Draft) -> None:
        entry = draft.entry(draft.named("shop.rego"))
        entry.update(changes)
        for name in [name for name, value in entry.items() if value is None]:
            del entry[name]

    return change


def _entry_by(how: Callable[[dict[str, Any]], Any]) -> Change:
    return lambda draft: how(draft.entry(draft.named("shop.rego")))


def _rehash(algorithm: str, label: str) -> Change:
    def change(draft: Draft) -> None:
        name = draft.named("shop.rego")
        digest = hashlib.new(algorithm, draft.members[name]).hexdigest()
        draft.entry(name).update(hash=digest, algorithm=label)

    return change


def _swap_hashes(draft: Draft) -> None:
    left, right = draft.entry(draft.named("shop.rego")), draft.entry(draft.named("decision.rego"))
    left["hash"], right["hash"] = right["hash"], left["hash"]


def _ghost(draft: Draft) -> None:
    draft.listed().append({"name": "policies/ghost.rego", "hash": "00" * 32, "algorithm": "SHA-256"})


def _listed_twice(draft: Draft) -> None:
    draft.listed().append(dict(draft.entry(draft.named("shop.rego"))))


def _listed_first_wrongly(draft: Draft) -> None:
    draft.listed().insert(0, {**draft.entry(draft.named("shop.rego")), "hash": "00" * 32})


def _payload_text(old: str, new: str) -> Change:
    def change(draft: Draft) -> None:
        draft.payload_text = lambda text: text.replace(old, new, 1)

    return change


CLAIMS = layer(
    "claims",
    ("the scope is another one", _claim(scope="read")),
    ("the scope is missing", _claim(scope=None)),
    ("the scope is empty", _claim(scope="")),
    ("the scope is in capitals", _claim(scope="WRITE")),
    ("the scope is a list", _claim(scope=["write"])),
    ("the scope is given twice, the second wrong", _payload_text('"scope"', '"scope":"write","scope":"read","x"')),
    ("the scope is given twice, the second right", _payload_text('"scope"', '"scope":"read","scope"'), "strict JSON"),
    ("the scope is also given in capitals", _payload_text('"scope"', '"SCOPE":"read","scope"')),
    ("the key id is another one", _claim(keyid="other"), "one key id"),
    ("the key id is missing", _claim(keyid=None)),
    ("the key id is a number", _claim(keyid=1)),
    ("the list of files is missing", _claim(files=None)),
    ("the list of files is empty", _claim(files=[])),
    ("the list of files is an object", _claim(files={})),
    ("the list of files holds a text", lambda draft: draft.listed().append("x")),
    ("the list names a file that is missing", _ghost),
    ("the list names a file twice alike", _listed_twice, "one spelling"),
    ("the list names a file twice, first with a wrong hash", _listed_first_wrongly, "one spelling"),
    ("the list has its entries in another order", lambda draft: draft.listed().reverse()),
    ("two hashes are swapped", _swap_hashes),
    ("a hash is empty", _entry(hash="")),
    ("a hash is cut short", _entry_by(lambda entry: entry.update(hash=entry["hash"][:32]))),
    ("a hash is one byte longer", _entry_by(lambda entry: entry.update(hash=entry["hash"] + "00"))),
    ("a hash is missing", _entry(hash=None)),
    ("a hash is in capitals", _entry_by(lambda entry: entry.update(hash=entry["hash"].upper())), "one spelling"),
    ("a hash begins with 0x", _entry_by(lambda entry: entry.update(hash="0x" + entry["hash"]))),
    ("a hash algorithm is spelt SHA256", _entry(algorithm="SHA256")),
    ("a hash algorithm is spelt sha-256", _entry(algorithm="sha-256")),
    ("a hash algorithm is missing", _entry(algorithm=None)),
    ("a hash algorithm is none", _entry(algorithm="none", hash="")),
    ("a SHA-256 hash is called SHA-512", _entry(algorithm="SHA-512")),
    ("a hash is MD5 and says so", _rehash("md5", "MD5"), "SHA-256 only"),
    ("a hash is SHA-1 and says so", _rehash("sha1", "SHA-1"), "SHA-256 only"),
    ("a hash is SHA-512 and says so", _rehash("sha512", "SHA-512"), "SHA-256 only"),
    ("a listed name begins with a slash", _entry_by(lambda entry: entry.update(name="/" + entry["name"])), "listed names"),
    ("a listed name begins with two slashes", _entry_by(lambda entry: entry.update(name="//" + entry["name"]))),
    ("a listed name takes a way round", _entry_by(lambda entry: entry.update(name="policies/../" + entry["name"]))),
    ("a listed file says more than it should", _entry(size=1), "strict JSON"),
    ("the instant of signing is a text", _claim(iat="now")),
    ("the instant of signing has a fraction", _payload_text('"iat":1', '"iat":0.5,"x":1')),
    ("it was signed in the future", _shifted(iat=3600), "our claims"),
    ("it has expired", _shifted(exp=-1), "our claims"),
    ("it is not yet valid", _shifted(nbf=3600), "our claims"),
    ("it is meant for somebody else", _claim(aud=["other"]), "our claims"),
    ("it is meant for nobody", _claim(aud=[]), "our claims"),
    ("the audience is missing", _claim(aud=None), "our claims"),
    ("it is another bundle", _claim(tidegate_name="other"), "our claims"),
    ("the bundle's name is missing", _claim(tidegate_name=None), "our claims"),
    ("the sequence is lower than one seen", _claim(tidegate_seq=6), "our claims"),
    ("the sequence is missing", _claim(tidegate_seq=None), "our claims"),
    ("the sequence is a text", _claim(tidegate_seq="7"), "our claims"),
    ("the sequence is given twice", _payload_text('"tidegate_seq"', '"tidegate_seq":9,"tidegate_seq"'), "strict JSON"),
    ("the epoch is another one", _claim(tidegate_epoch=1), "our claims"),
    ("the issuer is a number", _claim(iss=5), "issuer"),
    ("a claim nobody knows rides along", _claim(note="hello")),
    ("the payload is followed by a letter", lambda draft: setattr(draft, "payload_text", lambda text: text + "x")),
    ("the payload is a list", lambda draft: setattr(draft, "payload_text", lambda text: f"[{text}]")),
    ("the payload is not JSON", lambda draft: setattr(draft, "payload_text", lambda text: encode(b"x"))),
)  # fmt: skip
