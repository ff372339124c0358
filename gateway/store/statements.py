"""The SQL of the SQLite driver. Written by `python -m tools.sql` from `tools/sql`: change it there.

Guarantees: no statement is put together from values; every value is a bound parameter. The ones of the hot path take
positional parameters, the others named ones.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 1

TABLES: Final = (
    (
        "CREATE TABLE IF NOT EXISTS answers ( id INTEGER NOT NULL, log_id INTEGER NOT NULL, call TEXT NOT "
        "NULL, expires BIGINT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (id), UNIQUE (log_id, call) )"
    ),
    ("CREATE INDEX IF NOT EXISTS answers_by_expiry ON answers (expires)"),
    (
        "CREATE TABLE IF NOT EXISTS approvals ( id TEXT NOT NULL, log_id INTEGER NOT NULL, version INTEGER "
        "NOT NULL, state TEXT NOT NULL, action_digest TEXT NOT NULL, attach_key TEXT NOT NULL, requester TEXT"
        " NOT NULL, created BIGINT NOT NULL, deadline BIGINT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (id)"
        " )"
    ),
    ("CREATE INDEX IF NOT EXISTS approvals_by_age ON approvals (log_id, created, id)"),
    ("CREATE INDEX IF NOT EXISTS approvals_by_deadline ON approvals (state, deadline)"),
    ("CREATE INDEX IF NOT EXISTS approvals_by_requester ON approvals (log_id, requester, state, deadline)"),
    ("CREATE INDEX IF NOT EXISTS approvals_by_state ON approvals (log_id, state, created, id)"),
    (
        "CREATE UNIQUE INDEX IF NOT EXISTS approvals_open ON approvals (log_id, attach_key) WHERE state IN "
        "('pending', 'approved')"
    ),
    (
        "CREATE TABLE IF NOT EXISTS calls ( log_id INTEGER NOT NULL, id TEXT NOT NULL, subject TEXT NOT NULL,"
        " issuer TEXT NOT NULL, instance TEXT NOT NULL, action TEXT NOT NULL, state TEXT NOT NULL, effect "
        "TEXT NOT NULL, code TEXT, decision TEXT NOT NULL, approval TEXT, status INTEGER, created BIGINT NOT "
        "NULL, PRIMARY KEY (log_id, id) ) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE IF NOT EXISTS differences ( id INTEGER NOT NULL, log_id INTEGER NOT NULL, call TEXT NOT"
        " NULL, at BIGINT NOT NULL, expires BIGINT NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, PRIMARY "
        "KEY (id) )"
    ),
    ("CREATE INDEX IF NOT EXISTS differences_by_age ON differences (log_id, id)"),
    ("CREATE INDEX IF NOT EXISTS differences_by_expiry ON differences (expires)"),
    ("CREATE INDEX IF NOT EXISTS differences_by_kind ON differences (log_id, kind, id)"),
    (
        "CREATE TABLE IF NOT EXISTS inputs ( id INTEGER NOT NULL, log_id INTEGER NOT NULL, call TEXT NOT "
        "NULL, at BIGINT NOT NULL, expires BIGINT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (id), UNIQUE "
        "(log_id, call) )"
    ),
    ("CREATE INDEX IF NOT EXISTS inputs_by_age ON inputs (log_id, id)"),
    ("CREATE INDEX IF NOT EXISTS inputs_by_call ON inputs (call)"),
    ("CREATE INDEX IF NOT EXISTS inputs_by_expiry ON inputs (expires)"),
    (
        "CREATE TABLE IF NOT EXISTS keys ( log_id INTEGER NOT NULL, scope TEXT NOT NULL, request_digest TEXT "
        "NOT NULL, call TEXT NOT NULL, state TEXT NOT NULL, expires BIGINT NOT NULL, PRIMARY KEY (log_id, "
        "scope) ) WITHOUT ROWID"
    ),
    ("CREATE INDEX IF NOT EXISTS keys_by_expiry ON keys (expires)"),
    (
        "CREATE TABLE IF NOT EXISTS logs ( id INTEGER NOT NULL, tenant TEXT NOT NULL, workspace TEXT NOT "
        "NULL, next_seq BIGINT NOT NULL, hash TEXT NOT NULL, hlc_ms BIGINT NOT NULL, hlc_count BIGINT NOT "
        "NULL, PRIMARY KEY (id), UNIQUE (tenant, workspace) )"
    ),
    ("CREATE TABLE IF NOT EXISTS meta ( name TEXT NOT NULL, value BIGINT NOT NULL, PRIMARY KEY (name) )"),
    (
        "CREATE TABLE IF NOT EXISTS open_intents ( log_id INTEGER NOT NULL, call TEXT NOT NULL, seq BIGINT "
        "NOT NULL, wall BIGINT NOT NULL, PRIMARY KEY (log_id, call) ) WITHOUT ROWID"
    ),
    ("CREATE TABLE IF NOT EXISTS sequences ( name TEXT NOT NULL, sequence BIGINT NOT NULL, PRIMARY KEY (name) )"),
    (
        "CREATE TABLE IF NOT EXISTS switches ( scope TEXT NOT NULL, tenant TEXT NOT NULL, reason TEXT NOT "
        "NULL, set_by TEXT NOT NULL, set_at BIGINT NOT NULL, PRIMARY KEY (scope) )"
    ),
    (
        "CREATE TABLE IF NOT EXISTS records ( id INTEGER NOT NULL, log_id INTEGER NOT NULL, seq BIGINT NOT "
        "NULL, call TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (id), UNIQUE (log_id, seq), FOREIGN "
        "KEY(log_id) REFERENCES logs (id) )"
    ),
    ("CREATE INDEX IF NOT EXISTS records_by_call ON records (call, log_id)"),
)
"""Create whatever does not exist yet, in this order."""

LOG_HEAD: Final = (
    "SELECT logs.id, logs.next_seq, logs.hash, logs.hlc_ms, logs.hlc_count FROM logs WHERE logs.tenant = "
    "? AND logs.workspace = ?"
)
INSERT_RECORD: Final = "INSERT INTO records (log_id, seq, call, data) VALUES (?, ?, ?, ?)"
INSERT_INTENT: Final = "INSERT OR REPLACE INTO open_intents (log_id, call, seq, wall) VALUES (?, ?, ?, ?)"
DELETE_INTENT: Final = "DELETE FROM open_intents WHERE (log_id, call) IN (VALUES (?, ?))"
UPDATE_HEAD: Final = "UPDATE logs SET next_seq=?, hash=?, hlc_ms=?, hlc_count=? WHERE logs.id = ?"
INSERT_LOG: Final = (
    "INSERT INTO logs (tenant, workspace, next_seq, hash, hlc_ms, hlc_count) VALUES (:tenant, :workspace,"
    " :next_seq, :hash, :hlc_ms, :hlc_count)"
)
PUT_META: Final = "INSERT OR REPLACE INTO meta (name, value) VALUES (:name, :value)"
GET_META: Final = "SELECT meta.value FROM meta WHERE meta.name = :name_"
GET_KEY: Final = (
    "SELECT keys.request_digest, keys.call, keys.state, keys.expires, keys.state = 'claimed' AND (EXISTS "
    "(SELECT * FROM open_intents WHERE open_intents.log_id = keys.log_id AND open_intents.call = "
    "keys.call)) AS running FROM keys WHERE keys.log_id = :log AND keys.scope = :scope_"
)
PUT_KEY: Final = (
    "INSERT OR REPLACE INTO keys (log_id, scope, request_digest, call, state, expires) VALUES (:log_id, "
    ":scope, :request_digest, :call, :state, :expires)"
)
SETTLE_KEY: Final = (
    "UPDATE keys SET state=:state WHERE keys.log_id = :log AND keys.scope = :scope_ AND keys.call = :call_"
)
RELEASE_KEY: Final = (
    "DELETE FROM keys WHERE keys.log_id = :log AND keys.scope = :scope_ AND keys.call = :call_ AND "
    "keys.state = 'claimed'"
)
KEYS_UNKNOWN: Final = (
    "UPDATE keys SET state='unknown' WHERE keys.log_id = :log AND keys.call = :call_ AND keys.state = 'claimed'"
)
CALLS_UNKNOWN: Final = (
    "UPDATE calls SET state='unknown', code='outcome_unknown', status=NULL WHERE calls.log_id = :log AND "
    "calls.id = :call_"
)
PUT_ANSWER: Final = (
    "INSERT OR REPLACE INTO answers (log_id, call, expires, sealed) VALUES (:log_id, :call, :expires, :sealed)"
)
PUT_CALL: Final = (
    "INSERT OR REPLACE INTO calls (log_id, id, subject, issuer, instance, action, state, effect, code, "
    "decision, approval, status, created) VALUES (:log_id, :id, :subject, :issuer, :instance, :action, "
    ":state, :effect, :code, :decision, :approval, :status, :created)"
)
PRUNE_KEYS: Final = (
    "DELETE FROM keys WHERE keys.expires <= :now AND NOT (keys.state = 'claimed' AND (EXISTS (SELECT * "
    "FROM open_intents WHERE open_intents.log_id = keys.log_id AND open_intents.call = keys.call)))"
)
PRUNE_ANSWERS: Final = "DELETE FROM answers WHERE answers.expires <= :now"
PUT_INPUT: Final = (
    "INSERT OR REPLACE INTO inputs (log_id, call, at, expires, sealed) VALUES (:log_id, :call, :at, :expires, :sealed)"
)
PUT_DIFFERENCE: Final = (
    "INSERT INTO differences (log_id, call, at, expires, kind, data) VALUES (:log_id, :call, :at, "
    ":expires, :kind, :data)"
)
PRUNE_INPUTS: Final = "DELETE FROM inputs WHERE inputs.expires <= :now"
PRUNE_DIFFERENCES: Final = (
    "DELETE FROM differences WHERE differences.expires <= :now OR differences.id <= (SELECT "
    "max(differences.id) AS max_1 FROM differences) - :kept"
)
INSERT_APPROVAL: Final = (
    "INSERT INTO approvals (id, log_id, version, state, action_digest, attach_key, requester, created, "
    "deadline, sealed) VALUES (:id, :log_id, :version, :state, :action_digest, :attach_key, :requester, "
    ":created, :deadline, :sealed)"
)
OPEN_OF_CALL: Final = (
    "SELECT approvals.id, approvals.sealed FROM approvals WHERE approvals.log_id = :log AND "
    "approvals.attach_key = :attach AND approvals.state IN ('pending', 'approved')"
)
COUNT_OPEN_OF_REQUESTER: Final = (
    "SELECT count(*) AS count_1 FROM approvals WHERE approvals.log_id = :log AND approvals.requester = "
    ":who AND approvals.state IN ('pending', 'approved') AND approvals.deadline > :now"
)
CHANGE_APPROVAL: Final = (
    "UPDATE approvals SET version=:version, state=:state, deadline=:deadline, sealed=:sealed WHERE "
    "approvals.log_id = :log AND approvals.id = :id_ AND approvals.version = :expected_version"
)
PUT_SWITCH: Final = (
    "INSERT OR REPLACE INTO switches (scope, tenant, reason, set_by, set_at) VALUES (:scope, :tenant, "
    ":reason, :set_by, :set_at)"
)
DELETE_SWITCH: Final = "DELETE FROM switches WHERE switches.scope = :scope_ AND switches.tenant = :tenant_"
PUT_SEQUENCE: Final = "INSERT OR REPLACE INTO sequences (name, sequence) VALUES (:name, :sequence)"
GET_SEQUENCE: Final = "SELECT sequences.sequence FROM sequences WHERE sequences.name = :name_"
GET_LOG: Final = (
    "SELECT logs.id, logs.next_seq, logs.hash FROM logs WHERE logs.tenant = :tenant AND logs.workspace = :workspace"
)
LIST_LOGS: Final = (
    "SELECT logs.id, logs.tenant, logs.workspace, logs.next_seq, logs.hash FROM logs ORDER BY "
    "logs.tenant, logs.workspace"
)
GET_APPROVAL: Final = "SELECT approvals.sealed FROM approvals WHERE approvals.log_id = :log AND approvals.id = :id_"
LIST_APPROVALS: Final = (
    "SELECT approvals.id, approvals.sealed FROM approvals WHERE approvals.log_id = :log AND "
    "(approvals.created, approvals.id) < (:created, :id_) ORDER BY approvals.created DESC, approvals.id "
    "DESC LIMIT :count OFFSET 0"
)
LIST_BY_STATE: Final = (
    "SELECT approvals.id, approvals.sealed FROM approvals WHERE approvals.log_id = :log AND "
    "(approvals.created, approvals.id) < (:created, :id_) AND approvals.state = :state_ ORDER BY "
    "approvals.created DESC, approvals.id DESC LIMIT :count OFFSET 0"
)
LIST_LIVE: Final = (
    "SELECT approvals.id, approvals.sealed FROM approvals WHERE approvals.log_id = :log AND "
    "(approvals.created, approvals.id) < (:created, :id_) AND approvals.state = :state_ AND "
    "approvals.deadline > :now ORDER BY approvals.created DESC, approvals.id DESC LIMIT :count OFFSET 0"
)
LIST_EXPIRED: Final = (
    "SELECT approvals.id, approvals.sealed FROM approvals WHERE approvals.log_id = :log AND "
    "(approvals.created, approvals.id) < (:created, :id_) AND (approvals.state = 'expired' OR "
    "approvals.state IN ('pending', 'approved') AND approvals.deadline <= :now) ORDER BY "
    "approvals.created DESC, approvals.id DESC LIMIT :count OFFSET 0"
)
COUNT_PENDING: Final = (
    "SELECT count(*) AS count_1 FROM approvals WHERE approvals.state = 'pending' AND approvals.deadline > :now"
)
DUE_APPROVALS: Final = (
    "SELECT approvals.id, approvals.sealed, logs.tenant, logs.workspace FROM approvals JOIN logs ON "
    "logs.id = approvals.log_id WHERE approvals.state IN ('pending', 'approved') AND approvals.deadline "
    "<= :now ORDER BY approvals.deadline LIMIT :count OFFSET 0"
)
GET_ANSWER: Final = (
    "SELECT answers.sealed FROM answers WHERE answers.log_id = :log AND answers.call = :call_ AND "
    "answers.expires > :now"
)
GET_CALL: Final = (
    "SELECT calls.log_id, calls.id, calls.subject, calls.issuer, calls.instance, calls.action, "
    "calls.state, calls.effect, calls.code, calls.decision, calls.approval, calls.status, calls.created "
    "FROM calls WHERE calls.log_id = :log AND calls.id = :id_"
)
RECORDS_OF_CALL: Final = (
    "SELECT records.data FROM records WHERE records.call = :call_ AND records.log_id = :log ORDER BY "
    "records.id LIMIT :count OFFSET 0"
)
LIST_RECORDS: Final = (
    "SELECT records.seq, records.data FROM records WHERE records.log_id = :log AND records.seq >= :first "
    "ORDER BY records.seq LIMIT :count OFFSET 0"
)
CHECK_RECORDS: Final = (
    "SELECT records.id, records.seq, records.call, records.data FROM records WHERE records.log_id = :log "
    "AND records.seq >= :first ORDER BY records.seq"
)
UNLISTED_RECORDS: Final = (
    "SELECT records.log_id, count(*) AS count_1 FROM records WHERE NOT (EXISTS (SELECT * FROM logs WHERE "
    "logs.id = records.log_id)) GROUP BY records.log_id LIMIT :count OFFSET 0"
)
GET_INPUT: Final = (
    "SELECT inputs.id, inputs.call, inputs.at, inputs.sealed FROM inputs WHERE inputs.log_id = :log AND "
    "inputs.call = :call_ AND inputs.expires > :now"
)
LIST_INPUTS: Final = (
    "SELECT inputs.id, inputs.call, inputs.at, inputs.sealed FROM inputs WHERE inputs.log_id = :log AND "
    "inputs.id < :before AND inputs.expires > :now ORDER BY inputs.id DESC LIMIT :count OFFSET 0"
)
FIND_INPUT: Final = (
    "SELECT logs.tenant, logs.workspace, inputs.id, inputs.call, inputs.at, inputs.sealed FROM inputs "
    "JOIN logs ON logs.id = inputs.log_id WHERE inputs.call = :call_ AND inputs.expires > :now ORDER BY "
    "inputs.id DESC LIMIT :count OFFSET 0"
)
NEWEST_INPUTS: Final = (
    "SELECT logs.tenant, logs.workspace, inputs.id, inputs.call, inputs.at, inputs.sealed FROM inputs "
    "JOIN logs ON logs.id = inputs.log_id WHERE inputs.expires > :now ORDER BY inputs.id DESC LIMIT "
    ":count OFFSET 0"
)
FIND_RECORDS: Final = (
    "SELECT records.data FROM records WHERE records.call = :call_ ORDER BY records.id LIMIT :count OFFSET 0"
)
LIST_DIFFERENCES: Final = (
    "SELECT differences.call, differences.id, differences.at, differences.kind, differences.data FROM "
    "differences WHERE differences.log_id = :log AND differences.id < :before AND differences.expires > "
    ":now ORDER BY differences.id DESC LIMIT :count OFFSET 0"
)
LIST_DIFFERENCES_OF_KIND: Final = (
    "SELECT differences.call, differences.id, differences.at, differences.kind, differences.data FROM "
    "differences WHERE differences.log_id = :log AND differences.id < :before AND differences.expires > "
    ":now AND differences.kind = :kind_ ORDER BY differences.id DESC LIMIT :count OFFSET 0"
)
COUNT_DIFFERENCES: Final = (
    "SELECT differences.kind, count(*) AS count_1 FROM differences WHERE differences.log_id = :log AND "
    "differences.expires > :now GROUP BY differences.kind"
)
LIST_SWITCHES: Final = (
    "SELECT switches.scope, switches.tenant, switches.reason, switches.set_by, switches.set_at FROM "
    "switches ORDER BY switches.scope"
)
LIST_INTENTS: Final = (
    "SELECT logs.tenant, logs.workspace, open_intents.call, open_intents.seq, open_intents.wall FROM "
    "open_intents JOIN logs ON logs.id = open_intents.log_id ORDER BY open_intents.wall LIMIT :count "
    "OFFSET 0"
)
NEWEST_RECORDS: Final = (
    "SELECT logs.tenant, logs.workspace, records.seq, records.data FROM records JOIN logs ON logs.id = "
    "records.log_id ORDER BY records.id DESC LIMIT :count OFFSET 0"
)
RECORDS_AFTER: Final = (
    "SELECT logs.tenant, logs.workspace, records.seq, records.data FROM records JOIN logs ON logs.id = "
    "records.log_id WHERE records.id > :position ORDER BY records.id LIMIT :count OFFSET 0"
)
LAST_POSITION: Final = "SELECT max(records.id) AS max_1 FROM records"
