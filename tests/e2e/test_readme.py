"""The README's quick start and its section "By hand", run as they stand.

Only ports are changed, so that the tests can run beside others: in the configuration, by `TIDEGATE_GATE`, in the URL of
`curl` and for the stand-ins; and `ID` becomes the approval's id, as the text says.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, child_environment, edit_config, free_port, read_config
from tests.e2e.raw import exchange, request

SECONDS = 170
COMMAND_SECONDS = 60.0
POLL_SECONDS = 0.05
GATE_ADDRESS = "127.0.0.1:8080"
_FENCE = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_APPROVAL = re.compile(r"waiting for approval (\S+);")


def _blocks(heading: str) -> list[list[str]]:
    """The commands of each fenced block below a heading; a command that goes on in the next line is one."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [_FENCED_COMMAND.findall(block) for block in _FENCE.findall(section)]


_FENCED_COMMAND = re.compile(r"^(?! )((?:[^\n]*\\\n)*[^\n]+)$", re.MULTILINE)


@pytest.mark.timeout(180)
def test_quick_start_shows_allowed_denied_and_approved_when_run_as_written(tmp_path: Path) -> None:
    assert _blocks("Quick start") == [["make run ONCE=1"]]
    done = subprocess.run(
        ["make", "run", "ONCE=1", f"RUN_DIR={tmp_path / 'run'}"],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    said = (done.stdout + done.stderr).lower()
    assert done.returncode == 0, said
    for word in ("allowed", "denied", "held", "approved", "ledger"):
        assert word in said


class Terminal:
    """A shell that is typed into; what it shows goes to a file."""

    def __init__(self, directory: Path, environment: dict[str, str], name: str) -> None:
        self._screen = directory / f"{name}.txt"
        self._count = 0
        with self._screen.open("wb") as output:
            self._shell = subprocess.Popen(
                ["sh"],
                cwd=directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @classmethod
    @contextmanager
    def open(cls, directory: Path, environment: dict[str, str], name: str) -> Iterator[Terminal]:
        """A terminal until the end of the block; then Ctrl-C for what still runs in it, and the shell's end."""
        terminal = cls(directory, environment, name)
        try:
            yield terminal
        finally:
            terminal._close()

    def start(self, command: str) -> None:
        """Type a command that runs on."""
        stdin = self._shell.stdin
        assert stdin is not None
        stdin.write(f"{{ {command}\n}} </dev/null\n".encode())
        stdin.flush()

    def run(self, command: str) -> str:
        """Type a command, wait for its end, and give what it showed. It must succeed."""
        self._count += 1
        mark = f"-- end of {self._count}: "
        before = len(self.shown())
        self.start(command)
        self.start(f"printf '\\n{mark}%s\\n' $?")
        _until(lambda: re.search(rf"^{mark}\d+\n", self.shown()[before:], re.MULTILINE) is not None, self)
        said, _, status = self.shown()[before:].rpartition(mark)
        assert status.strip() == "0", f"{command}: {said}"
        return said

    def shown(self) -> str:
        """Everything on the screen."""
        return self._screen.read_text(encoding="utf-8", errors="replace")

    def _close(self) -> None:
        if self._shell.stdin is not None:
            self._shell.stdin.close()
        os.killpg(self._shell.pid, signal.SIGINT)
        try:
            self._shell.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()


def _until(holds: Callable[[], bool], terminal: Terminal) -> None:
    deadline = time.monotonic() + COMMAND_SECONDS
    while not holds():
        assert time.monotonic() < deadline, terminal.shown()
        time.sleep(POLL_SECONDS)


def _answers(port: int) -> bool:
    here = f"127.0.0.1:{port}"
    try:
        return exchange(f"http://{here}", request("GET", "/health/ready", {"Host": here}), hold_open=True).status > 0
    except OSError:
        return False


def _checkout(directory: Path) -> dict[str, str]:
    """What the commands need of a checkout, and a user's environment."""
    for name in (".venv", "examples"):
        (directory / name).symlink_to(ROOT / name)
    environment = child_environment()
    del environment["PYTHONPATH"]
    return environment


def _free_ports(demo: Path) -> tuple[int, dict[str, int]]:
    """Put free ports into the configuration; the gate's, and each service's."""
    gate = free_port()
    services = {name: free_port() for name in read_config(demo)["instances"]}
    instances = {name: {"base_url": f"http://127.0.0.1:{port}"} for name, port in services.items()}
    listen = {"gate": f"127.0.0.1:{gate}", "metrics": f"127.0.0.1:{free_port()}"}
    edit_config(demo, {"listen": listen, "instances": instances})
    return gate, services


def _run_calls(terminal: Terminal, commands: list[str], gate: int) -> list[str]:
    """Type the commands one after the other; what each showed. `ID` is what the held call named."""
    shown: list[str] = []
    for command in commands:
        typed = command.replace(GATE_ADDRESS, f"127.0.0.1:{gate}")
        if " ID " in typed:
            held = _APPROVAL.search(" ".join(" ".join(shown).split()))
            assert held is not None, shown
            typed = typed.replace(" ID ", f" {held[1]} ")
        shown.append(terminal.run(typed))
    return shown


@pytest.mark.timeout(180)
def test_by_hand_leads_from_init_to_an_approved_call_when_typed_as_written(tmp_path: Path) -> None:
    first, second, third, held = _blocks("By hand")
    assert first[0] == "make env"
    environment = _checkout(tmp_path)
    with Terminal.open(tmp_path, environment, "first") as gate_terminal:
        gate_terminal.run(f"make -C '{ROOT}' env")
        assert "written: demo" in "".join(gate_terminal.run(command) for command in first[1:3])
        gate, services = _free_ports(tmp_path / "demo")
        checked = gate_terminal.run(first[3])
        assert all(f"instance {name}:" in checked for name in services)
        gate_terminal.start(first[4])
        _until(lambda: _answers(gate), gate_terminal)
        environment["TIDEGATE_GATE"] = f"http://127.0.0.1:{gate}"
        with (
            Terminal.open(tmp_path, environment, "second") as services_terminal,
            Terminal.open(tmp_path, environment, "third") as callers,
        ):
            services_terminal.run(second[0])
            ports = " ".join(f"--port {name}={port}" for name, port in services.items())
            services_terminal.start(f"{second[1]} {ports}")
            _until(lambda: all(_answers(port) for port in services.values()), services_terminal)
            *_, listed, fetched = _run_calls(callers, third, gate)
            assert "the service answered 200" in listed
            assert '"result"' in fetched
            *_, asked, waiting, voted, sent, verified = _run_calls(callers, held, gate)
    assert "waiting for approval" in asked
    assert "pending" in waiting
    assert "approved" in voted
    assert "the service answered 201" in sent
    assert "acme/ops" in verified
    assert "broken" not in verified
