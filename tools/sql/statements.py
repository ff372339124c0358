"""The SQL of the SQLite driver, compiled from the tables of `schema`.

Guarantees: no statement is put together from values; every value is a bound parameter. The ones of the hot path take
positional parameters, the others named ones.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    Delete,
    Insert,
    Select,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.elements import ColumnElement

from tools.sql.schema import (
    answers,
    approvals,
    calls,
    differences,
    inputs,
    keys,
    logs,
    meta,
    open_intents,
    records,
    sequences,
    switches,
)


def _compiled(statement: Select[Any] | Insert | Update | Delete, style: str = "named") -> str:
    dialect = sqlite.dialect(paramstyle=style)
    return str(statement.compile(dialect=dialect))


def _p(name: str) -> ColumnElement[Any]:
    return bindparam(name)


_NONE: Final[ColumnElement[Any]] = literal_column("0")
"""SQLAlchemy's SQLite dialect otherwise adds an offset parameter of its own to each limit."""

# Hot path, positional.
LOG_HEAD: Final = _compiled(
    select(logs.c.id, logs.c.next_seq, logs.c.hash, logs.c.hlc_ms, logs.c.hlc_count).where(
        logs.c.tenant == _p("tenant"), logs.c.workspace == _p("workspace")
    ),
    "qmark",
)
INSERT_RECORD: Final = _compiled(
    insert(records).values(log_id=_p("log_id"), seq=_p("seq"), call=_p("call"), data=_p("data")), "qmark"
)
INSERT_INTENT: Final = _compiled(
    insert(open_intents)
    .prefix_with("OR REPLACE")
    .values(log_id=_p("log_id"), call=_p("call"), seq=_p("seq"), wall=_p("wall")),
    "qmark",
)
DELETE_INTENT: Final = (
    _compiled(delete(open_intents), "qmark")
    + f" WHERE ({open_intents.c.log_id.name}, {open_intents.c.call.name}) IN (VALUES (?, ?))"
)
UPDATE_HEAD: Final = _compiled(
    update(logs)
    .where(logs.c.id == _p("log"))
    .values(next_seq=_p("next_seq"), hash=_p("hash"), hlc_ms=_p("hlc_ms"), hlc_count=_p("hlc_count")),
    "qmark",
)

# Writer, named.
INSERT_LOG: Final = _compiled(
    insert(logs).values({name: _p(name) for name in ("tenant", "workspace", "next_seq", "hash", "hlc_ms", "hlc_count")})
)
PUT_META: Final = _compiled(insert(meta).prefix_with("OR REPLACE").values(name=_p("name"), value=_p("value")))
GET_META: Final = _compiled(select(meta.c.value).where(meta.c.name == _p("name_")))

_key = and_(keys.c.log_id == _p("log"), keys.c.scope == _p("scope_"))
_claimed = keys.c.state == literal_column("'claimed'")
_running = and_(_claimed, exists().where(open_intents.c.log_id == keys.c.log_id, open_intents.c.call == keys.c.call))
"""A claimed key whose call has an intent without outcome: held whatever its expiry says."""
GET_KEY: Final = _compiled(
    select(keys.c.request_digest, keys.c.call, keys.c.state, keys.c.expires, _running.label("running")).where(_key)
)
PUT_KEY: Final = _compiled(insert(keys).prefix_with("OR REPLACE").values({c.name: _p(c.name) for c in keys.c}))
SETTLE_KEY: Final = _compiled(update(keys).where(_key, keys.c.call == _p("call_")).values(state=_p("state")))
RELEASE_KEY: Final = _compiled(delete(keys).where(_key, keys.c.call == _p("call_"), _claimed))
KEYS_UNKNOWN: Final = _compiled(
    update(keys)
    .where(keys.c.log_id == _p("log"), keys.c.call == _p("call_"), _claimed)
    .values(state=literal_column("'unknown'"))
)
CALLS_UNKNOWN: Final = _compiled(
    update(calls)
    .where(calls.c.log_id == _p("log"), calls.c.id == _p("call_"))
    .values(state=literal_column("'unknown'"), code=literal_column("'outcome_unknown'"), status=literal_column("NULL"))
)
PUT_ANSWER: Final = _compiled(
    insert(answers)
    .prefix_with("OR REPLACE")
    .values({name: _p(name) for name in ("log_id", "call", "expires", "sealed")})
)
PUT_CALL: Final = _compiled(insert(calls).prefix_with("OR REPLACE").values({c.name: _p(c.name) for c in calls.c}))
PRUNE_KEYS: Final = _compiled(delete(keys).where(keys.c.expires <= _p("now"), not_(_running)))
PRUNE_ANSWERS: Final = _compiled(delete(answers).where(answers.c.expires <= _p("now")))
PUT_INPUT: Final = _compiled(
    insert(inputs)
    .prefix_with("OR REPLACE")
    .values({name: _p(name) for name in ("log_id", "call", "at", "expires", "sealed")})
)
PUT_DIFFERENCE: Final = _compiled(
    insert(differences).values({name: _p(name) for name in ("log_id", "call", "at", "expires", "kind", "data")})
)
PRUNE_INPUTS: Final = _compiled(delete(inputs).where(inputs.c.expires <= _p("now")))
PRUNE_DIFFERENCES: Final = _compiled(
    delete(differences).where(
        or_(
            differences.c.expires <= _p("now"),
            differences.c.id <= select(func.max(differences.c.id)).scalar_subquery() - _p("kept"),
        )
    )
)

_pending = approvals.c.state == literal_column("'pending'")
_open = approvals.c.state.in_([literal_column("'pending'"), literal_column("'approved'")])
INSERT_APPROVAL: Final = _compiled(insert(approvals).values({c.name: _p(c.name) for c in approvals.c}))
OPEN_OF_CALL: Final = _compiled(
    select(approvals.c.id, approvals.c.sealed).where(
        approvals.c.log_id == _p("log"), approvals.c.attach_key == _p("attach"), _open
    )
)
COUNT_OPEN_OF_REQUESTER: Final = _compiled(
    select(func.count()).where(
        approvals.c.log_id == _p("log"), approvals.c.requester == _p("who"), _open, approvals.c.deadline > _p("now")
    )
)
CHANGE_APPROVAL: Final = _compiled(
    update(approvals)
    .where(approvals.c.log_id == _p("log"), approvals.c.id == _p("id_"), approvals.c.version == _p("expected_version"))
    .values(version=_p("version"), state=_p("state"), deadline=_p("deadline"), sealed=_p("sealed"))
)
PUT_SWITCH: Final = _compiled(
    insert(switches).prefix_with("OR REPLACE").values({c.name: _p(c.name) for c in switches.c})
)
DELETE_SWITCH: Final = _compiled(
    delete(switches).where(switches.c.scope == _p("scope_"), switches.c.tenant == _p("tenant_"))
)
PUT_SEQUENCE: Final = _compiled(
    insert(sequences).prefix_with("OR REPLACE").values(name=_p("name"), sequence=_p("sequence"))
)

# Reads, named.
GET_SEQUENCE: Final = _compiled(select(sequences.c.sequence).where(sequences.c.name == _p("name_")))
GET_LOG: Final = _compiled(
    select(logs.c.id, logs.c.next_seq, logs.c.hash).where(
        logs.c.tenant == _p("tenant"), logs.c.workspace == _p("workspace")
    )
)
LIST_LOGS: Final = _compiled(
    select(logs.c.id, logs.c.tenant, logs.c.workspace, logs.c.next_seq, logs.c.hash).order_by(
        logs.c.tenant, logs.c.workspace
    )
)
GET_APPROVAL: Final = _compiled(
    select(approvals.c.sealed).where(approvals.c.log_id == _p("log"), approvals.c.id == _p("id_"))
)
_older = and_(
    approvals.c.log_id == _p("log"), tuple_(approvals.c.created, approvals.c.id) < tuple_(_p("created"), _p("id_"))
)
_live = approvals.c.deadline > _p("now")
_newest_first = (approvals.c.created.desc(), approvals.c.id.desc())
_list = select(approvals.c.id, approvals.c.sealed)
LIST_APPROVALS: Final = _compiled(_list.where(_older).order_by(*_newest_first).limit(_p("count")).offset(_NONE))
LIST_BY_STATE: Final = _compiled(
    _list.where(_older, approvals.c.state == _p("state_")).order_by(*_newest_first).limit(_p("count")).offset(_NONE)
)
LIST_LIVE: Final = _compiled(
    _list.where(_older, approvals.c.state == _p("state_"), _live)
    .order_by(*_newest_first)
    .limit(_p("count"))
    .offset(_NONE)
)
LIST_EXPIRED: Final = _compiled(
    _list.where(
        _older,
        or_(approvals.c.state == literal_column("'expired'"), and_(_open, approvals.c.deadline <= _p("now"))),
    )
    .order_by(*_newest_first)
    .limit(_p("count"))
    .offset(_NONE)
)
COUNT_PENDING: Final = _compiled(select(func.count()).select_from(approvals).where(_pending, _live))
DUE_APPROVALS: Final = _compiled(
    select(approvals.c.id, approvals.c.sealed, logs.c.tenant, logs.c.workspace)
    .select_from(approvals.join(logs, logs.c.id == approvals.c.log_id))
    .where(_open, approvals.c.deadline <= _p("now"))
    .order_by(approvals.c.deadline)
    .limit(_p("count"))
    .offset(_NONE)
)
GET_ANSWER: Final = _compiled(
    select(answers.c.sealed).where(
        answers.c.log_id == _p("log"), answers.c.call == _p("call_"), answers.c.expires > _p("now")
    )
)
GET_CALL: Final = _compiled(select(calls).where(calls.c.log_id == _p("log"), calls.c.id == _p("id_")))
RECORDS_OF_CALL: Final = _compiled(
    select(records.c.data)
    .where(records.c.call == _p("call_"), records.c.log_id == _p("log"))
    .order_by(records.c.id)
    .limit(_p("count"))
    .offset(_NONE)
)
LIST_RECORDS: Final = _compiled(
    select(records.c.seq, records.c.data)
    .where(records.c.log_id == _p("log"), records.c.seq >= _p("first"))
    .order_by(records.c.seq)
    .limit(_p("count"))
    .offset(_NONE)
)
CHECK_RECORDS: Final = _compiled(
    select(records.c.id, records.c.seq, records.c.call, records.c.data)
    .where(records.c.log_id == _p("log"), records.c.seq >= _p("first"))
    .order_by(records.c.seq)
)
UNLISTED_RECORDS: Final = _compiled(
    select(records.c.log_id, func.count())
    .where(not_(exists().where(logs.c.id == records.c.log_id)))
    .group_by(records.c.log_id)
    .limit(_p("count"))
    .offset(_NONE)
)
_kept = select(inputs.c.id, inputs.c.call, inputs.c.at, inputs.c.sealed)
_kept_still = inputs.c.expires > _p("now")
GET_INPUT: Final = _compiled(_kept.where(inputs.c.log_id == _p("log"), inputs.c.call == _p("call_"), _kept_still))
LIST_INPUTS: Final = _compiled(
    _kept.where(inputs.c.log_id == _p("log"), inputs.c.id < _p("before"), _kept_still)
    .order_by(inputs.c.id.desc())
    .limit(_p("count"))
    .offset(_NONE)
)
FIND_INPUT: Final = _compiled(
    select(logs.c.tenant, logs.c.workspace, inputs.c.id, inputs.c.call, inputs.c.at, inputs.c.sealed)
    .select_from(inputs.join(logs, logs.c.id == inputs.c.log_id))
    .where(inputs.c.call == _p("call_"), _kept_still)
    .order_by(inputs.c.id.desc())
    .limit(_p("count"))
    .offset(_NONE)
)
NEWEST_INPUTS: Final = _compiled(
    select(logs.c.tenant, logs.c.workspace, inputs.c.id, inputs.c.call, inputs.c.at, inputs.c.sealed)
    .select_from(inputs.join(logs, logs.c.id == inputs.c.log_id))
    .where(_kept_still)
    .order_by(inputs.c.id.desc())
    .limit(_p("count"))
    .offset(_NONE)
)
FIND_RECORDS: Final = _compiled(
    select(records.c.data).where(records.c.call == _p("call_")).order_by(records.c.id).limit(_p("count")).offset(_NONE)
)
_differing = select(
    differences.c.call, differences.c.id, differences.c.at, differences.c.kind, differences.c.data
).where(differences.c.log_id == _p("log"), differences.c.id < _p("before"), differences.c.expires > _p("now"))
LIST_DIFFERENCES: Final = _compiled(_differing.order_by(differences.c.id.desc()).limit(_p("count")).offset(_NONE))
LIST_DIFFERENCES_OF_KIND: Final = _compiled(
    _differing.where(differences.c.kind == _p("kind_"))
    .order_by(differences.c.id.desc())
    .limit(_p("count"))
    .offset(_NONE)
)
COUNT_DIFFERENCES: Final = _compiled(
    select(differences.c.kind, func.count())
    .where(differences.c.log_id == _p("log"), differences.c.expires > _p("now"))
    .group_by(differences.c.kind)
)
LIST_SWITCHES: Final = _compiled(select(switches).order_by(switches.c.scope))
LIST_INTENTS: Final = _compiled(
    select(logs.c.tenant, logs.c.workspace, open_intents.c.call, open_intents.c.seq, open_intents.c.wall)
    .select_from(open_intents.join(logs, logs.c.id == open_intents.c.log_id))
    .order_by(open_intents.c.wall)
    .limit(_p("count"))
    .offset(_NONE)
)
_written = select(logs.c.tenant, logs.c.workspace, records.c.seq, records.c.data).select_from(
    records.join(logs, logs.c.id == records.c.log_id)
)
NEWEST_RECORDS: Final = _compiled(_written.order_by(records.c.id.desc()).limit(_p("count")).offset(_NONE))
RECORDS_AFTER: Final = _compiled(
    _written.where(records.c.id > _p("position")).order_by(records.c.id).limit(_p("count")).offset(_NONE)
)
LAST_POSITION: Final = _compiled(select(func.max(records.c.id)))
