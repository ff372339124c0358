"""Bundles made small: what the tests of decisions prepare, and the questions they ask."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import wasmtime

from bundles.canonical import JsonValue
from bundles.trusted_set import Probe, TrustedBundle
from pdp.documents import ActionFacts, PolicyInput, ResourceFacts, SubjectFacts
from pdp.engine import ENTRYPOINT

CHAINS: dict[str, JsonValue] = {
    "one-approver": {"steps": [{"id": "approver", "role": "approver", "quorum": 1}]},
    "two-person": {"steps": [{"id": "first", "role": "approver"}, {"id": "second", "role": "operator"}]},
}

ALLOW = b'{"effect":"ALLOW","obligations":{},"reasons":[]}'

QUESTION = PolicyInput(
    subject=SubjectFacts("agent", "triage-1", "acme", "ops", "dev", ("triage",)),
    action=ActionFacts("servicenow.incident.update", "write", "medium", True, True),
    resource=ResourceFacts("incident", "INC001", "servicenow", "servicenow"),
    args={"sys_id": "INC001", "state": 2, "note": "printer on fire"},
    time_unix=1_763_735_119.25,
    call="call-1",
    request={"method": "PATCH", "path": "/api/now/table/incident/INC001", "query": "", "protocol": "http"},
)

RULES = b"""package tidegate

decision := {"effect": effect, "reasons": reasons, "obligations": obligations}

default effect := "DENY"

effect := "REQUIRE_HITL" if input.subject.properties.environment == "prod"

effect := "ALLOW" if {
	input.subject.properties.environment != "prod"
	"triage" in input.subject.properties.roles
}

reasons contains {"code": "role", "rule": "policies.servicenow.allow", "message": concat(" ", ["as", role])} if {
	some role in input.subject.properties.roles
}

default obligations := {}

obligations := {"approval": {"chains": ["one-approver"]}} if effect == "REQUIRE_HITL"
"""


def compile_rego(opa: Path, files: Mapping[str, bytes]) -> bytes:
    """The Wasm that OPA makes of these files, with the one entry point every bundle has."""
    with TemporaryDirectory() as scratch:
        for name, raw in files.items():
            Path(scratch, name).write_bytes(raw)
        out = Path(scratch, "out.tar.gz")
        command = [str(opa), "build", "-t", "wasm", "-e", ENTRYPOINT, "-o", str(out)]
        ran = subprocess.run(
            [*command, *(str(Path(scratch, name)) for name in files)], capture_output=True, check=False
        )
        if ran.returncode:
            raise ValueError(ran.stderr.decode() + ran.stdout.decode())
        with tarfile.open(fileobj=BytesIO(out.read_bytes())) as archive:
            member = archive.extractfile("/policy.wasm")
            return member.read() if member is not None else b""


def bundle_of(
    wasm: bytes | None,
    /,
    *,
    files: Mapping[str, bytes] | None = None,
    probes: tuple[Probe, ...] = (),
    **changes: object,
) -> TrustedBundle:
    """A verified bundle as the signature check hands it on."""
    bundle = TrustedBundle(
        name="main",
        revision="r1",
        sequence=1,
        epoch=0,
        digest="sha256:" + "0" * 64,
        expires_at=None,
        keyids=("bundle",),
        manifest={},
        data={"chains": CHAINS, "connectors": {}},
        rego=dict(files if files is not None else {"policies/tidegate.rego": RULES}),
        wasm=wasm,
        probes=probes,
        profile="1",
        entrypoints=(ENTRYPOINT,),
        cacheable=False,
    )
    return replace(bundle, **changes)  # type: ignore[arg-type]


def asked(**changes: object) -> PolicyInput:
    """The usual question with some facts changed."""
    return QUESTION._replace(**changes)  # type: ignore[arg-type]


def in_environment(environment: str) -> PolicyInput:
    """The usual question from another environment."""
    return asked(subject=QUESTION.subject._replace(environment=environment))


def module_text(
    body: str, *, answer: bytes = b"[]", builtins: bytes = b"{}", imports: str = "", pages: int = 2
) -> bytes:
    """A module that has OPA's interface and whatever ``opa_eval`` a test wants: faults no compiled policy shows at will.

    Texts lie at fixed places: the answer at 1024, builtins at 8192, entry points at 12288; the heap starts at 16384.
    """
    entrypoints = b'{"%s": 0}' % ENTRYPOINT.encode()
    return bytes(
        wasmtime.wat2wasm(f"""(module
  (import "env" "memory" (memory {pages}))
  (import "env" "opa_abort" (func $abort (param i32)))
  {imports}
  (global (export "opa_wasm_abi_version") i32 (i32.const 1))
  (global (export "opa_wasm_abi_minor_version") i32 (i32.const 3))
  (global $heap (mut i32) (i32.const 16384))
  (global $calls (mut i32) (i32.const 0))
  (data (i32.const 1024) "{_escaped(answer)}\\00")
  (data (i32.const 8192) "{_escaped(builtins)}\\00")
  (data (i32.const 12288) "{_escaped(entrypoints)}\\00")
  (data (i32.const 512) "gave up\\00")
  (func (export "opa_malloc") (param $size i32) (result i32)
    (local $at i32) (local.set $at (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $size)))
    (block $fits (loop $grow
      (br_if $fits (i32.lt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
      (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (call $abort (i32.const 512))))
      (br $grow)))
    (local.get $at))
  (func (export "opa_json_parse") (param i32 i32) (result i32) (local.get 0))
  (func (export "opa_json_dump") (param i32) (result i32) (local.get 0))
  (func (export "opa_heap_ptr_get") (result i32) (global.get $heap))
  (func (export "opa_heap_ptr_set") (param i32) (global.set $heap (local.get 0)))
  (func (export "builtins") (result i32) (i32.const 8192))
  (func (export "entrypoints") (result i32) (i32.const 12288))
  {body})""")
    )


def evaluating(body: str) -> str:
    """``opa_eval`` with this body; the answer's address is left on the stack. 0 to 6 are its arguments."""
    return f'(func $eval (export "opa_eval") (param i32 i32 i32 i32 i32 i32 i32) (result i32) {body})'


def _escaped(raw: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in raw)
