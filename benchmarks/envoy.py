"""The gate against the incumbent: Envoy asking OPA's ext_authz plugin, in alternating rounds of one run.

Every side stands before the same target and gets the same requests, body and token included. OPA decides with the Rego and
data of the measured bundle; a small policy of its own makes the bundle's input document from what Envoy asks, and a yes
or no from the bundle's decision. The rules look at that document where they look at `input` otherwise, because OPA takes
twice as long for the same with `with input as`. What the incumbent does *not* do, and the gate does: check the token's signature, check
arguments against a schema, record the call durably, inject a credential. Envoy and OPA may use every core; the gate is
one worker. Beside them the target itself and a bare reverse proxy. Only ratios inside one run mean anything.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop

from benchmarks.measured import CONNECTOR, KINDS, load_measured, measured_directory
from benchmarks.proxy import Address, add_ratios, prepared, rounds_of, server
from benchmarks.report import show, summary, write
from bundles.trusted_set import TrustedBundle
from tests.e2e.harness import ROOT, GateProcess, child_environment, free_port
from tests.e2e.raw import exchange
from tests.integration.envoy_mesh import bootstrap, running_envoy

INCUMBENT: Final = "envoy+opa"
START_SECONDS: Final = 20.0
BODY_MAX_BYTES: Final = 1 << 20
ENVOY_WORKERS: Final = 2
CONCURRENCIES: Final = (16, 1)
# What P1 asks of the gate, as ratios to the incumbent: throughput at least, p99 and added p50 at most.
GOALS: Final = {"read": (2.0, 0.6, 1.0), "write": (1.5, 0.8, 1.3)}
WRAPPER: Final = """package tidegate_envoy

allow if data.tidegate.decision.effect == "ALLOW"

claims := io.jwt.decode(substring(http.headers.authorization, 7, -1))[1]

http := input.attributes.request.http

parts := input.parsed_path

search if parts[3] == "search"

args := object.union(input.parsed_body, {"kind": parts[2]}) if search

args := object.union(input.parsed_body, {"kind": parts[2], "id": parts[3]}) if not search

action := {"name": "records.record.search", "properties": {"mode": "read", "risk": "low", "reversible": true, "idempotent": true}} if {
	http.method == "POST"
	search
}

action := {"name": "records.record.update", "properties": {"mode": "write", "risk": "medium", "reversible": true, "idempotent": false}} if {
	http.method == "PATCH"
	not search
}

resource_id := parts[2] if search

resource_id := concat("/", [parts[2], parts[3]]) if not search

# An object of unknown members: the rules ask for some that no request of these has.
question := object.union(object.get(input, "absent", {}), {
	"v": 1,
	"subject": {"type": "agent", "id": claims.sub, "properties": {
		"tenant": claims.tenant,
		"workspace": claims.workspace,
		"environment": claims.environment,
		"roles": claims.roles,
	}},
	"action": action,
	"resource": {"type": "record", "id": resource_id, "properties": {"connector": "records", "instance": "records"}},
	"args": args,
	"context": {
		"clock": {"minute_of_day": 720},
		"request": {"method": http.method, "path": http.path, "query": "", "protocol": "http"},
	},
})
"""
_INPUT: Final = re.compile(rb"\binput\.")


@contextlib.contextmanager
def opa_with_plugin(bundle: TrustedBundle, folder: Path) -> Iterator[int]:
    """OPA with Envoy's plugin, the bundle's policies and data, and the wrapper; the port it answers Envoy on."""
    for name, content in bundle.rego.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_INPUT.sub(b"data.tidegate_envoy.question.", content))
    (folder / "wrapper.rego").write_text(WRAPPER, encoding="utf-8")
    (folder / "data.json").write_text(json.dumps(bundle.data), encoding="utf-8")
    port = free_port()
    plugin = f"plugins.envoy_ext_authz_grpc.addr=127.0.0.1:{port}"
    command = [str(ROOT / ".tools/opa-envoy"), "run", "--server", "--skip-version-check", "--log-level", "error"]
    command += ["--addr", f"127.0.0.1:{free_port()}", "--set", plugin]
    command += ["--set", "plugins.envoy_ext_authz_grpc.path=tidegate_envoy/allow", str(folder)]
    process = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def incumbent(bundle: TrustedBundle, folder: Path, target: Address) -> Iterator[Address]:
    """Envoy before the target, asking OPA about every request."""
    port = free_port()
    asks = {
        "encode_raw_headers": None,
        "with_request_body": {"max_request_bytes": BODY_MAX_BYTES, "allow_partial_message": False},
    }
    (folder / "opa").mkdir()
    with opa_with_plugin(bundle, folder / "opa") as opa:
        document = bootstrap(port, target[1], f"127.0.0.1:{opa}", asks=asks)
        with running_envoy(folder, document, port, workers=ENVOY_WORKERS):
            yield "127.0.0.1", port


def check_decides(address: Address, token: str) -> None:
    """Raise unless the incumbent lets both requests through, and refuses one that the rules deny."""
    url, host = f"http://{address[0]}:{address[1]}", f"{address[0]}:{address[1]}"
    deadline = time.monotonic() + START_SECONDS
    for kind in KINDS.values():
        while exchange(url, kind.raw(host, "", token), hold_open=True).status != 200:
            if time.monotonic() > deadline:
                raise RuntimeError("the incumbent refuses what it should allow")
            time.sleep(0.1)
    denied = KINDS["write"].raw(host, "", token).replace(b"what a triage step writes", b"what a drop table  writes")
    if exchange(url, denied, hold_open=True).status != 403:
        raise RuntimeError("the incumbent allows what the rules deny")


def ratios(rows: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The gate against the incumbent (P1) and against the bare proxy (P2), for reads and for writes."""
    found = {}
    for kind in KINDS:
        gate, other, floor, direct = (rows[f"{side} {kind}"] for side in ("gate", INCUMBENT, "floor", "direct"))
        added = (gate["p50_ms"] - direct["p50_ms"]) / max(other["p50_ms"] - direct["p50_ms"], 0.001)
        goal = GOALS[kind]
        found[kind] = {
            "throughput": round(gate["achieved_per_second"] / max(other["achieved_per_second"], 0.001), 3),
            "throughput_goal": goal[0],
            "p99": round(gate["p99_ms"] / max(other["p99_ms"], 0.001), 3),
            "p99_goal": goal[1],
            "added_p50": round(added, 3),
            "added_p50_goal": goal[2],
            "of_floor": round(gate["achieved_per_second"] / max(floor["achieved_per_second"], 0.001), 3),
        }
    return found


def run(rounds: int, seconds: float) -> dict[str, object]:
    """Measure, print and write; the document that was written."""
    document: dict[str, object] = {"envoy_workers": ENVOY_WORKERS}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = stack.enter_context(server("target"))
        floor = stack.enter_context(server("floor", target[1]))
        directory = measured_directory(folder / "gate", f"http://{target[0]}:{target[1]}")
        gate = stack.enter_context(GateProcess.start(directory))
        envoy = stack.enter_context(incumbent(load_measured(directory), folder, target))
        token = gate.token("triage-bot", "triage")
        check_decides(envoy, token)
        parts = urlsplit(gate.url)
        own = (str(parts.hostname), int(parts.port or 0))
        sides = {
            "direct": (target, prepared(target, "", token)),
            "floor": (floor, prepared(floor, "", token)),
            INCUMBENT: (envoy, prepared(envoy, "", token)),
            "gate": (own, prepared(own, f"/c/{CONNECTOR}", token)),
        }
        for concurrency in CONCURRENCIES:
            samples = uvloop.run(rounds_of(sides, concurrency, rounds, seconds))
            rows = {name: summary(runs) for name, runs in samples.items()}
            add_ratios(rows)
            show(f"closed loop, concurrency {concurrency}, median of {rounds} rounds of {seconds:g} s", rows)
            compared = ratios(rows)
            show(f"the gate against {INCUMBENT} (P1) and the bare proxy (P2), concurrency {concurrency}", compared)
            document[f"concurrency_{concurrency}"] = {"rows": rows, "ratios": compared}
    print(f"written to {write('envoy', document)}")
    return document
