"""A polling client in front of a real bundle service, without a network: clocks that move by hand, faults by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bundles.client import BundleClient, ClientParts
from bundles.client_protocol import ClientSettings, ClientTrust, Fetched, Question
from bundles.client_state import ClientFiles, LeaseGuard
from bundles.errors import BundleError
from bundles.lease import ClockReading
from bundles.sequence import SequenceFile
from bundles.service_protocol import ServiceRequest
from bundles.trusted_set import TrustedBundle, TrustedKey
from tests.bundles.parts import NOW, trust
from tests.bundles.test_freshness import KEY
from tests.bundles.test_service import GATES, Desk, write_directory

Spoil = Callable[[Fetched], Fetched]


class Clocks:
    """Wall and boot clock, moved by the test."""

    def __init__(self) -> None:
        self.wall = float(NOW)
        self.boot = 1_000.0
        self.start = "boot-1"

    def read(self) -> ClockReading:
        return ClockReading(self.wall, self.boot, self.start)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds


class Site:
    """One gate's folder, its clocks, and the service it asks."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.desk = Desk(write_directory(folder / "service"))
        self.folder = folder / "gate"
        self.clocks = Clocks()
        self.settings = replace(ClientSettings(long_poll=False), **settings)  # type: ignore[arg-type]
        self.freshness_keys: tuple[TrustedKey, ...] = (KEY,)
        self.trust = trust()
        self.sequence = SequenceFile(self.folder / "sequence")
        self.remembered_as = "main"
        self.spoil: Spoil | BundleError | None = None
        self.asked: list[Question] = []
        self.in_force: list[TrustedBundle] = []
        self.refuses_to_install: BundleError | None = None
        self.said: list[str] = []
        self.steady = 0.0
        self.client = self.restarted()

    def restarted(self) -> BundleClient:
        """A gate process that begins on what is on disk."""
        self.guard = LeaseGuard(self.clocks.read, wall=lambda: self.clocks.wall, boot=lambda: self.clocks.boot)
        files, began, moved = ClientFiles(self.folder), time.monotonic(), self.steady

        def steady() -> float:
            """Time that passes by itself, and by hand."""
            return time.monotonic() - began + self.steady - moved

        parts = ClientParts(self.fetch, files, self.guard, self.highest, chance=lambda: 0.0, steady=steady)
        self.client = BundleClient(ClientTrust(self.trust, self.freshness_keys), self.settings, parts)
        return self.client

    async def highest(self) -> int:
        return await asyncio.to_thread(self.sequence.highest, self.remembered_as)

    async def fetch(self, question: Question) -> Fetched:
        """The service's answer, put through the fault."""
        self.asked.append(question)
        self.desk.now = self.clocks.wall
        if isinstance(self.spoil, BundleError):
            raise self.spoil
        # Without Prefer: nobody waits by hand-moved clocks.
        headers = {name.lower(): value for name, value in question.headers if name != "Prefer"}
        headers["authorization"] = f"Bearer {GATES}"
        answer = await self.desk.service.handle(ServiceRequest("GET", "/bundles/main", headers, _nothing))
        given = {name.lower(): value for name, value in answer.headers}
        fetched = Fetched(answer.status, given, answer.body)
        return self.spoil(fetched) if self.spoil is not None else fetched

    async def install(self, bundle: TrustedBundle) -> None:
        if self.refuses_to_install is not None:
            raise self.refuses_to_install
        self.in_force.append(bundle)
        await asyncio.to_thread(self.sequence.raise_to, self.remembered_as, bundle.sequence)

    async def poll(self) -> None:
        """Ask once, and put in force what comes."""
        offer = await self.client.ask()
        if offer is not None:
            await self.install(offer.bundle)
            await self.client.commit(offer)

    def say(self, fault: BundleError) -> None:
        self.said.append(fault.code)


async def _nothing() -> bytes:
    return b""
