"""The gRPC listener: where it listens, whom it lets ask, what it bounds."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.config import GatewayConfig, load_config
from gateway.envoy.server import METHOD, SERVICE, DoorUnavailable, RunningDoor, start_door
from gateway.envoy.service import ExtAuthzService
from gateway.errors import GateMisuse
from tests.gateway.envoy.questions import status_of
from tests.gateway.envoy.test_service import ASKED, GOING, Runner, service

SECONDS = 5.0
PEER = "spiffe://mesh.test/envoy"
DOCUMENT = """
identity: {issuers: [{issuer: "urn:i", audience: a, jwks: "file:j", tenants: [acme]}]}
bundles: [{name: main, tenants: [acme], source: "file:b", trusted_keys: [{keyid: k, algorithm: ES256, key: "file:k"}]}]
limits: {body_max_bytes: 2048, headers_max_bytes: 1024}
listen: {ext_authz: %s}
"""


def config(folder: Path, door: str) -> GatewayConfig:
    return load_config(DOCUMENT % door, folder, {})


@asynccontextmanager
async def listening(folder: Path, door: str, asked: ExtAuthzService) -> AsyncIterator[RunningDoor]:
    running = await start_door(config(folder, door), asked)
    try:
        yield running
    finally:
        await running.close(SECONDS)


Ask = Callable[..., Awaitable[bytes]]


@asynccontextmanager
async def client(target: str, credentials: Any = None) -> AsyncIterator[Ask]:
    options = (("grpc.enable_http_proxy", 0),)
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options=options)
    else:
        channel = grpc.aio.secure_channel(target, credentials, options=options)
    async with channel:
        call = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        yield call


async def refused_with(asking: Awaitable[bytes]) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await asking
    return failed.value.code()


LOOPBACK = '{address: "127.0.0.1:0"}'


async def test_door_answers_when_asked_on_loopback(tmp_path: Path) -> None:
    async with (
        listening(tmp_path, LOOPBACK, service(Runner(GOING))) as door,
        client(f"127.0.0.1:{door.port}") as ask,
    ):
        assert status_of(await ask(ASKED, timeout=SECONDS)) == 200


async def test_door_answers_when_asked_on_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    async with (
        listening(tmp_path, '{address: "unix:door.sock"}', service(Runner(GOING))),
        client(f"unix:{path}") as ask,
    ):
        assert status_of(await ask(ASKED, timeout=SECONDS)) == 200
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


async def test_door_takes_the_socket_when_nobody_listens_on_it_any_more(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with (
        listening(tmp_path, '{address: "unix:door.sock"}', service(Runner(GOING))),
        client(f"unix:{path}") as ask,
    ):
        assert status_of(await ask(ASKED, timeout=SECONDS)) == 200


async def test_door_is_unavailable_when_somebody_listens_on_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "door.sock"))
        other.listen()
        with pytest.raises(DoorUnavailable):
            await start_door(config(tmp_path, '{address: "unix:door.sock"}'), service(Runner(GOING)))


async def test_door_is_unavailable_when_its_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        door = f'{{address: "127.0.0.1:{other.getsockname()[1]}"}}'
        with pytest.raises(DoorUnavailable):
            await start_door(config(tmp_path, door), service(Runner(GOING)))


async def test_door_is_unavailable_when_none_is_configured(tmp_path: Path) -> None:
    with pytest.raises(DoorUnavailable):
        await start_door(config(tmp_path, "null"), service(Runner(GOING)))


async def test_door_refuses_the_method_when_it_is_another(tmp_path: Path) -> None:
    async with listening(tmp_path, LOOPBACK, service(Runner(GOING))) as door:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
            other = channel.unary_unary(f"/{SERVICE}/Other")
            assert await refused_with(other(b"", timeout=SECONDS)) is grpc.StatusCode.UNIMPLEMENTED


async def test_door_refuses_the_message_when_it_is_too_large(tmp_path: Path) -> None:
    runner = Runner(GOING)
    async with (
        listening(tmp_path, LOOPBACK, service(runner)) as door,
        client(f"127.0.0.1:{door.port}") as ask,
    ):
        large = 2048 + 1024 + (64 << 10)
        assert await refused_with(ask(b"\0" * (large + 1), timeout=SECONDS)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert status_of(await ask(b"\0" * large, timeout=SECONDS)) == 400
    assert [code for code, _ in runner.counted] == ["malformed_request"]


async def test_door_denies_within_its_own_deadline_when_the_caller_has_none(tmp_path: Path) -> None:
    runner = Runner(GOING)
    runner.release = asyncio.Event()
    async with (
        listening(tmp_path, '{address: "127.0.0.1:0", deadline_ms: 20}', service(runner)) as door,
        client(f"127.0.0.1:{door.port}") as ask,
    ):
        assert status_of(await ask(ASKED)) == 408
        runner.release.set()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def _tls(folder: Path, authority: trustme.CA) -> str:
    server = authority.issue_cert("localhost")
    key = folder / "door.key"
    key.write_bytes(server.private_key_pem.bytes())
    key.chmod(0o600)
    (folder / "door.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    files = 'certificate: "file:door.pem", key: "file:door.key", client_ca: "file:ca.pem"'
    return f'{{address: "127.0.0.1:0", tls: {{{files}, peers: ["{PEER}"]}}}}'


def _credentials(authority: trustme.CA, issuer: trustme.CA | None, name: str = PEER) -> Any:
    root = authority.cert_pem.bytes()
    if issuer is None:
        return grpc.ssl_channel_credentials(root)
    key, certificate = _spiffe_certificate(issuer, name)
    return grpc.ssl_channel_credentials(root, key, certificate)


def _spiffe_certificate(issuer: trustme.CA, name: str) -> tuple[bytes, bytes]:
    """Key and certificate of a workload whose one name is a URI, as a mesh issues them."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.load_pem_x509_certificate(issuer.cert_pem.bytes())
    signer = serialization.load_pem_private_key(issuer.private_key_pem.bytes(), None)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=True)
    )
    certificate = builder.sign(cast(ec.EllipticCurvePrivateKey, signer), hashes.SHA256())
    plain = serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return encoded, certificate.public_bytes(serialization.Encoding.PEM)


async def _ask_over_tls(folder: Path, authority: trustme.CA, credentials: Any) -> Any:
    """The HTTP status of the answer, or the gRPC status of the refusal."""
    door = _tls(folder, authority)
    async with (
        listening(folder, door, service(Runner(GOING))) as running,
        client(f"localhost:{running.port}", credentials) as ask,
    ):
        try:
            return status_of(await ask(ASKED, timeout=SECONDS))
        except grpc.aio.AioRpcError as failed:
            return failed.code()


async def test_door_answers_when_the_peer_has_the_name(tmp_path: Path, authority: trustme.CA) -> None:
    assert await _ask_over_tls(tmp_path, authority, _credentials(authority, authority)) == 200


async def test_door_refuses_when_the_peer_has_another_name(tmp_path: Path, authority: trustme.CA) -> None:
    other = _credentials(authority, authority, "spiffe://mesh.test/other")
    assert await _ask_over_tls(tmp_path, authority, other) is grpc.StatusCode.PERMISSION_DENIED


async def test_door_refuses_when_the_peer_has_no_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    assert await _ask_over_tls(tmp_path, authority, _credentials(authority, None)) is grpc.StatusCode.UNAVAILABLE


async def test_door_refuses_when_another_authority_made_the_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    foreign = _credentials(authority, trustme.CA())
    assert await _ask_over_tls(tmp_path, authority, foreign) is grpc.StatusCode.UNAVAILABLE


async def test_door_does_not_open_when_others_can_read_its_key(tmp_path: Path, authority: trustme.CA) -> None:
    door = _tls(tmp_path, authority)
    (tmp_path / "door.key").chmod(0o644)
    with pytest.raises(GateMisuse):
        await start_door(config(tmp_path, door), service(Runner(GOING)))


async def test_door_is_unavailable_when_its_certificate_is_missing(tmp_path: Path, authority: trustme.CA) -> None:
    door = _tls(tmp_path, authority)
    (tmp_path / "door.pem").unlink()
    with pytest.raises(DoorUnavailable):
        await start_door(config(tmp_path, door), service(Runner(GOING)))
