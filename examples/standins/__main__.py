"""Run every stand-in on loopback: ``python -m examples.standins [--secrets-dir DIR] [--ports-file FILE]``.

Without ``--ports-file`` they listen where the starter configuration expects them (9501 to 9507); with it on free ports,
which are written to FILE as one JSON object once all listen. ``--port NAME=PORT`` sets one. With ``--secrets-dir`` each
accepts only the secret in ``DIR/NAME.secret``, which the gate injects; without, any credential that is not a caller's
token. Ends on SIGTERM or SIGINT. **These are stand-ins, not the services.**
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from aiohttp import web

from examples.standins import github, provider, servicenow, slack, webhook

HOST: Final = "127.0.0.1"
STARTER_PORTS: Final[Mapping[str, int]] = {
    "servicenow": 9501,
    "slack": 9502,
    "github": 9503,
    "openai": 9504,
    "anthropic": 9505,
    "slack-upload": 9506,
    "webhook": 9507,
}


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.standins", description="Stand-ins, not the services.")
    parser.add_argument("--secrets-dir", type=Path, help="directory with NAME.secret for each stand-in")
    parser.add_argument("--ports-file", type=Path, help="listen on free ports and write them here")
    parser.add_argument("--port", action="append", default=[], metavar="NAME=PORT", help="one stand-in's port")
    parsed = parser.parse_args(given)
    for entry in parsed.port:
        name, _, port = entry.partition("=")
        if name not in STARTER_PORTS or not port.isdecimal() or int(port) > 65535:
            parser.error(f"--port takes NAME=PORT with NAME one of {', '.join(STARTER_PORTS)}")
    return parsed


def _ports(parsed: argparse.Namespace) -> dict[str, int]:
    ports = dict.fromkeys(STARTER_PORTS, 0) if parsed.ports_file else dict(STARTER_PORTS)
    for entry in parsed.port:
        name, _, port = entry.partition("=")
        ports[name] = int(port)
    return ports


def _secret(directory: Path | None, name: str) -> str | None:
    path = directory / f"{name}.secret" if directory is not None else None
    return path.read_text(encoding="utf-8").strip() if path is not None and path.is_file() else None


async def _listen(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    bound: int = runner.addresses[0][1]
    return runner, bound


async def start_all(ports: Mapping[str, int], secrets_dir: Path | None) -> tuple[list[web.AppRunner], dict[str, int]]:
    """Start every stand-in; the runners to clean up, and where each listens."""
    upload, upload_port = await _listen(slack.build_upload(), ports["slack-upload"])
    runners, bound = [upload], {"slack-upload": upload_port}
    apps = {
        "servicenow": servicenow.build(_secret(secrets_dir, "servicenow")),
        "slack": slack.build(_secret(secrets_dir, "slack"), f"http://{HOST}:{upload_port}"),
        "github": github.build(_secret(secrets_dir, "github")),
        "openai": provider.build_openai(_secret(secrets_dir, "openai")),
        "anthropic": provider.build_anthropic(_secret(secrets_dir, "anthropic")),
        "webhook": webhook.build(_secret(secrets_dir, "webhook")),
    }
    for name, app in apps.items():
        runner, bound[name] = await _listen(app, ports[name])
        runners.append(runner)
    return runners, bound


def _write_ports(path: Path, bound: Mapping[str, int]) -> None:
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(json.dumps(bound), encoding="utf-8")
    unfinished.replace(path)


async def _run(parsed: argparse.Namespace) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    runners, bound = await start_all(_ports(parsed), parsed.secrets_dir)
    if parsed.ports_file:
        _write_ports(parsed.ports_file, bound)
    for name, port in bound.items():
        print(f"stand-in of {name} on http://{HOST}:{port}", flush=True)
    await ended.wait()
    for runner in runners:
        await runner.cleanup()


def main(given: Sequence[str] | None = None) -> int:
    """Run until a signal; 3 when a port is taken."""
    parsed = _arguments(given)
    try:
        asyncio.run(_run(parsed))
    except OSError as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
