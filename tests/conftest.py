"""What every test has: the blocking-call detector, and real parts by fixture.

A coroutine of ours that blocks the event loop fails the test that ran it. Parts that cost seconds (OPA, a starter
directory, a running gate with its stand-ins) are made once a run and shared by those that ask for them.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

from tests.e2e.harness import GateProcess, StandIns, init_directory, point_at_stand_ins

ROOT = Path(__file__).resolve().parents[1]
WATCHED = ["bundles", "pdp", "gateway"]
TRACING = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
UNTRACED = tuple(str(ROOT / "tests" / folder) + os.sep for folder in ("e2e", "agreement", "soak"))
"""Where the processes that tests start run as users run them, at full speed: what they cover is covered elsewhere too."""

# How long one example takes says what else the machine does; the time-out of the whole test stays.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--share 1/3` runs the first of three shares: what waits for processes most of its time runs side by side."""
    parser.addoption("--share", default="1/1", help="run share N of M of the test modules, N/M")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the modules of this run's share; every module is in exactly one."""
    number, _, count = str(config.getoption("--share")).partition("/")
    modules = sorted({item.nodeid.partition("::")[0] for item in items})
    kept = set(modules[int(number) - 1 :: int(count)])
    items[:] = [item for item in items if item.nodeid.partition("::")[0] in kept]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tracing costs a process half as much again: the children of some tests go without."""
    kept = {
        name: os.environ.pop(name) for name in TRACING if name in os.environ and str(item.path).startswith(UNTRACED)
    }
    try:
        return (yield)
    finally:
        os.environ.update(kept)


@pytest.fixture(autouse=True)
def blocking_calls_fail() -> Iterator[None]:
    """Raise in any coroutine of the shipped packages that blocks the event loop."""
    with blockbuster_ctx(WATCHED) as detector:
        detector.functions["threading.Lock.acquire"].deactivate()  # the coverage tracer takes one for an instant
        yield


@pytest.fixture(scope="session")
def opa_path() -> Path:
    """The pinned OPA. Missing is a failure, never a skip: `make opa` makes it."""
    path = ROOT / ".tools" / "opa"
    if not path.is_file():
        pytest.fail("the pinned OPA is missing: run `make opa`")
    return path


@pytest.fixture(scope="session")
def starter_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A starter directory as `tidegate init` writes it. Copy it before changing anything in it."""
    return init_directory(tmp_path_factory.mktemp("starter") / "gate")


@pytest.fixture(scope="session")
def starter_bundle(starter_directory: Path) -> Path:
    """The signed starter bundle."""
    return starter_directory / "bundle.tar.gz"


@pytest.fixture(scope="session")
def bundle_key(starter_directory: Path) -> Path:
    """The private key that signed the starter bundle."""
    return starter_directory / "keys" / "bundle.pem"


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIns]:
    """The stand-in services, each on a free loopback port."""
    with StandIns.start(tmp_path_factory.mktemp("standins")) as running:
        yield running


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A real gate process on loopback in front of the stand-ins, shared by the tests that only call through it."""
    directory = init_directory(tmp_path_factory.mktemp("gate") / "gate")
    point_at_stand_ins(directory, stand_ins)
    with GateProcess.start(directory) as running:
        yield running
