"""A real S3 server (moto's) on loopback as its own process: one request at a time, so that its conditions are atomic.

Run as ``python -m tests.bundles.s3_server``; it prints its port.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

ACCESS_KEY, SECRET_KEY, REGION, BUCKET = "loopback-access", "loopback-secret-" + "s" * 24, "eu-central-1", "bundles"


@dataclass(slots=True)
class S3Server:
    """The running server; its address and a client of its own to look at what lies there."""

    process: subprocess.Popen[bytes]
    port: int
    client: Any = field(repr=False)

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def new_bucket(self, name: str) -> str:
        """An empty bucket."""
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Takes connections and says nothing until the end of the block."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in a bucket."""
        listed = self.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {
            entry["Key"]: self.client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in listed
        }


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bundles.s3_server"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        if process.stdout is None:
            raise RuntimeError("no output to read the port from")
        port = int(process.stdout.readline())
        yield S3Server(process, port, _client(port))
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def _client(port: int) -> Any:
    import botocore.session

    return botocore.session.Session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def _serve() -> None:
    import flask.cli
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    flask.cli.show_server_banner = lambda *_: None
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=False, request_handler=MotoRequestHandler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve()
