"""What one call is driven with: the parts that outlive configurations, and what one configuration lets it reach.

Guarantees: values only; nothing here acts. Leaves performing to `gateway.flow.driver`, putting together to
`gateway.assembly` and `gateway.running`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import time

from gateway.approvals.service import ApprovalService
from gateway.connectors.classify import ActionTable
from gateway.connectors.credentials import CredentialInjector
from gateway.connectors.rewriters import Rewriters
from gateway.connectors.tickets import TicketBook
from gateway.edge.identity import IdentityVerifier
from gateway.edge.jwks import JwksStore
from gateway.egress.addresses import AddressClass
from gateway.egress.dialer import UpstreamPools
from gateway.egress.exchange import UpstreamTimeouts
from gateway.flow.places import Places
from gateway.flow.switches import SwitchBoard
from gateway.flow.values import InstancePlan
from gateway.ledger.outcomes_driver import OutcomeKeeper
from gateway.ledger.writer import LedgerWriter
from gateway.operations.metrics import Metrics
from gateway.store.port import Store
from gateway.watching import DecisionWatch
from pdp.prepared import PolicyPlane


@dataclass(frozen=True, slots=True)
class Target:
    """How one instance is reached: its credential, the addresses it may have, the rules for its answers."""

    base_url: str
    injector: CredentialInjector
    credential: str
    allowed: frozenset[AddressClass]
    rewriters: Rewriters
    table: ActionTable


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a call needs. They outlive configurations; what comes with one is in `Reach`."""

    store: Store
    writer: LedgerWriter
    approvals: ApprovalService
    policy: PolicyPlane
    pools: UpstreamPools
    tickets: TicketBook
    switches: SwitchBoard
    metrics: Metrics
    outcomes: OutcomeKeeper
    clock: Callable[[], float] = time
    watch: DecisionWatch = field(default_factory=DecisionWatch)
    places: Places = field(default_factory=Places)


@dataclass(frozen=True, slots=True)
class Reach:
    """What one configuration lets calls reach, and whose tokens it takes."""

    verifier: IdentityVerifier
    keys: JwksStore
    targets: dict[str, Target]
    timeouts: UpstreamTimeouts
    stream_max_seconds: float
    plans: Mapping[str, InstancePlan]
