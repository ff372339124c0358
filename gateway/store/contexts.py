"""Names of places, authenticated with each sealed value so that it opens nowhere else."""

from __future__ import annotations

from gateway.ledger.record import LogId, canonical_record_json


def approval_context(log: LogId, approval_id: str) -> str:
    """The place of an approval."""
    return canonical_record_json(["approval", *log, approval_id]).decode("utf-8")


def answer_context(log: LogId, call_id: str) -> str:
    """The place of a stored answer."""
    return canonical_record_json(["answer", *log, call_id]).decode("utf-8")


def input_context(log: LogId, call_id: str) -> str:
    """The place of a kept input."""
    return canonical_record_json(["input", *log, call_id]).decode("utf-8")
