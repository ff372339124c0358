"""The way out: which addresses may be dialled, and connections that carry exactly what was decided."""

from __future__ import annotations

from gateway.egress.addresses import AddressClass, address_classes, check_address, classify_address
from gateway.egress.dialer import PoolLimits, UpstreamPool, UpstreamPools
from gateway.egress.errors import UpstreamError, UpstreamFailed, UpstreamNotSent, UpstreamTimeout
from gateway.egress.exchange import UpstreamResponse, UpstreamTimeouts
from gateway.egress.fetch import fetch_document
from gateway.egress.resolver import Resolver, SystemResolver

__all__ = [
    "AddressClass",
    "PoolLimits",
    "Resolver",
    "SystemResolver",
    "UpstreamError",
    "UpstreamFailed",
    "UpstreamNotSent",
    "UpstreamPool",
    "UpstreamPools",
    "UpstreamResponse",
    "UpstreamTimeout",
    "UpstreamTimeouts",
    "address_classes",
    "check_address",
    "classify_address",
    "fetch_document",
]
