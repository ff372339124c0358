"""Each effect lives and dies with its record, and a conflict is its own item's alone."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gateway.ledger.writer import LedgerUnavailable
from gateway.store.answers import AnswerBroken, decode_answer, encode_answer, save_answer_effects
from gateway.store.port import (
    ANSWER_MAX_BYTES,
    CallRow,
    ClaimKey,
    ClearSwitch,
    RaiseSequence,
    SaveAnswer,
    SaveCall,
    SetSwitch,
    SettleKey,
    StoreConflict,
    StoredAnswer,
    StoreEffect,
    StoreUnavailable,
    SwitchRow,
    idempotency_scope,
)
from tests.gateway.store.build import KEYS, LOG, OTHER_LOG, START, OpenStore, draft, open_store

ALICE = ("urn:people", "alice", None, "prod")
SCOPE = idempotency_scope(LOG, ALICE, "servicenow", "key-1")
ANSWER = StoredAnswer(201, (("content-type", "application/json"),), b'{"secret":"of alice"}\n\x00')


def claim(digest: str = "d1", call: str = "c1", *, expires: int = START + 60_000) -> ClaimKey:
    return ClaimKey(LOG, SCOPE, digest, call, expires)


async def conflict_of(opened: OpenStore, *effects: StoreEffect) -> StoreConflict:
    before = await opened.store.records(LOG, 0, 200)
    with pytest.raises(StoreConflict) as caught:
        await opened.writer.append(draft(), effects=effects)
    assert await opened.store.records(LOG, 0, 200) == before
    return caught.value


@pytest.mark.parametrize(
    ("settled", "digest", "code"),
    [
        pytest.param(None, "d1", "still_running", id="the first call has not ended"),
        pytest.param(None, "d2", "idempotency_mismatch", id="another request under the key"),
        pytest.param("done", "d1", "replay", id="the first call ended"),
        pytest.param("done", "d2", "idempotency_mismatch", id="another request after the end"),
        pytest.param("unknown", "d1", "outcome_unknown", id="nobody knows the end"),
    ],
)
async def test_claim_conflicts_when_the_key_is_taken(
    tmp_path: Path, settled: str | None, digest: str, code: str
) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft(), effects=(claim(),))
        if settled is not None:
            await opened.writer.append(draft("outcome"), effects=(SettleKey(LOG, SCOPE, "c1", settled),))  # type: ignore[arg-type]
        conflict = await conflict_of(opened, claim(digest, "c2"))
        known = await opened.store.claim(LOG, SCOPE)
    assert (conflict.code, conflict.call) == (code, "c1")
    assert known is not None and known.state == (settled or "claimed")


@pytest.mark.parametrize(("digest", "code"), [("d1", "still_running"), ("d2", "idempotency_mismatch")])
async def test_claim_conflicts_when_the_key_has_expired_and_its_call_has_not_ended(
    tmp_path: Path, digest: str, code: str
) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft(), effects=(claim(),))
        opened.clock.advance(120)
        await asyncio.to_thread(opened.appender.tidy)
        assert (await conflict_of(opened, claim(digest, "c2"))).code == code
        known = await opened.store.claim(LOG, SCOPE)
        assert known is not None and (known.call, known.state) == ("c1", "claimed")
        await opened.writer.append(draft("outcome"), effects=(SettleKey(LOG, SCOPE, "c1", "done"),))
        assert await opened.store.claim(LOG, SCOPE) is None
        await opened.writer.append(draft(call="c2"), effects=(claim(digest, "c2"),))


async def test_claim_is_granted_once_when_many_race_for_a_key_that_is_born_expired(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        results = await asyncio.gather(
            *(
                opened.writer.append(draft(call=f"c{n}"), effects=(claim(call=f"c{n}", expires=START - 1),))
                for n in range(20)
            ),
            return_exceptions=True,
        )
    assert sum(not isinstance(result, BaseException) for result in results) == 1


async def test_claim_succeeds_when_the_first_expired_and_ended_without_settling_it(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft(), effects=(claim(),))
        await opened.writer.append(draft("outcome"))
        assert (await conflict_of(opened, claim(call="c2"))).code == "still_running"
        opened.clock.advance(60)
        await opened.writer.append(draft(call="c2"), effects=(claim(call="c2"),))


async def test_claim_succeeds_when_the_first_was_released_or_has_expired(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft(), effects=(claim(),))
        await opened.writer.append(draft("outcome"), effects=(SettleKey(LOG, SCOPE, "c1", "released"),))
        assert await opened.store.claim(LOG, SCOPE) is None
        await opened.writer.append(draft(), effects=(claim("d2", "c2"),))
        opened.clock.advance(60)
        assert await opened.store.claim(LOG, SCOPE) is None
        await opened.writer.append(draft(), effects=(claim("d3", "c3", expires=START + 120_000),))
        known = await opened.store.claim(LOG, SCOPE)
    assert known is not None and (known.call, known.request_digest) == ("c3", "d3")


async def test_claim_is_granted_once_when_many_race(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        results = await asyncio.gather(
            *(opened.writer.append(draft(call=f"c{n}"), effects=(claim(call=f"c{n}"),)) for n in range(50)),
            return_exceptions=True,
        )
        records = await opened.store.records(LOG, 0, 200)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert len(records) == 1
    assert {result.code for result in results if isinstance(result, StoreConflict)} == {"still_running"}


async def test_settle_conflicts_when_another_call_holds_the_key(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft(), effects=(claim(),))
        for result in ("done", "unknown", "released"):
            conflict = await conflict_of(opened, SettleKey(LOG, SCOPE, "c2", result))  # type: ignore[arg-type]
            assert conflict.code == "stale_state"


async def test_item_keeps_nothing_when_its_last_effect_conflicts(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        conflict = await conflict_of(opened, claim(), ClearSwitch("acme", "tenant/acme"))
        assert conflict.code == "not_found"
        assert await opened.store.claim(LOG, SCOPE) is None


def test_scope_differs_when_any_of_its_parts_does() -> None:
    others = [
        ("urn:other", "alice", None, "prod"),
        ("urn:people", "bob", None, "prod"),
        ("urn:people", "alice", "carol", "prod"),
        ("urn:people", "alice", None, "test"),
    ]
    changed = {
        *(idempotency_scope(LOG, who, "servicenow", "key-1") for who in others),
        idempotency_scope(OTHER_LOG, ALICE, "servicenow", "key-1"),
        idempotency_scope(LOG, ALICE, "github", "key-1"),
        idempotency_scope(LOG, ALICE, "servicenow", "key-2"),
        SCOPE,
    }
    assert len(changed) == 8


async def test_answer_is_given_back_and_unreadable_at_rest_when_stored(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft("outcome"), effects=(SaveAnswer(LOG, "c1", ANSWER, keep_seconds=10),))
        assert await opened.store.answer(LOG, "c1") == ANSWER
        assert await opened.store.answer(OTHER_LOG, "c1") is None
        opened.clock.advance(10)
        assert await opened.store.answer(LOG, "c1") is None
    assert not [file for file in opened.path.parent.iterdir() if b"of alice" in file.read_bytes()]


async def test_answer_does_not_open_when_it_was_moved_to_another_call(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft("outcome"), effects=(SaveAnswer(LOG, "c1", ANSWER),))
    moved = sqlite3.connect(opened.path)
    moved.execute("UPDATE answers SET call = 'c2'")
    moved.commit()
    moved.close()
    async with open_store(tmp_path) as again:
        with pytest.raises(StoreUnavailable, match="seal_broken: .* does not open"):
            await again.store.answer(LOG, "c2")


@pytest.mark.parametrize("size", [ANSWER_MAX_BYTES, ANSWER_MAX_BYTES + 1], ids=["at the bound", "one past it"])
def test_answer_is_kept_only_when_it_is_within_its_bound(size: int) -> None:
    assert len(save_answer_effects(LOG, "c1", StoredAnswer(200, (), b"x" * size))) == int(size == ANSWER_MAX_BYTES)


@pytest.mark.parametrize(
    "raw", [b"", b"{}\n", b"[]\n", b'{"status":"200","headers":[]}\n', b'{"status":200,"headers":[]}']
)
def test_answer_is_refused_when_its_bytes_are_none(raw: bytes) -> None:
    with pytest.raises(AnswerBroken):
        decode_answer(raw)


def test_answer_comes_back_when_encoded() -> None:
    assert decode_answer(encode_answer(ANSWER)) == ANSWER


async def test_call_is_followed_when_saved_and_derived_when_not(tmp_path: Path) -> None:
    row = CallRow(LOG, "c1", "alice", "urn:people", "servicenow", "servicenow.incident.update", "held", created=START)
    async with open_store(tmp_path) as opened:
        assert await opened.store.call(LOG, "c1") is None
        await opened.writer.append(draft("call"), effects=(SaveCall(row),))
        assert await opened.store.call(LOG, "c1") == row
        assert await opened.store.call(OTHER_LOG, "c1") is None
        await opened.writer.append(draft("intent", call="c2"))
        running = await opened.store.call(LOG, "c2")
        await opened.writer.append(draft("outcome", call="c2", status=204))
        ended = await opened.store.call(LOG, "c2")
        await opened.writer.append(draft("refusal", call="c3", code="denied"))
        refused = await opened.store.call(LOG, "c3")
        await opened.writer.append(draft("switch", call="c4"))
        assert await opened.store.call(LOG, "c4") is None
    assert running is not None and running.state == "dispatching"
    assert ended is not None and (ended.state, ended.status, ended.subject) == ("done", 204, "alice")
    assert refused is not None and (refused.state, refused.code) == ("refused", "denied")


async def test_switch_is_listed_when_set_and_gone_when_cleared(tmp_path: Path) -> None:
    row = SwitchRow("acme", "tenant/acme/connector/slack", "incident", "carol", START)
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft("switch"), effects=(SetSwitch(row),))
        await opened.writer.append(draft("switch"), effects=(SetSwitch(row),))
        assert await opened.store.switches() == (row,)
        await opened.writer.append(draft("switch"), effects=(ClearSwitch("acme", row.scope),))
        assert await opened.store.switches() == ()
        assert (await conflict_of(opened, ClearSwitch("acme", row.scope))).code == "not_found"


async def test_sequence_only_rises_when_bundles_come(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        assert await opened.store.sequence("main") == 0
        await opened.writer.append(draft("bundle"), effects=(RaiseSequence("main", 7),))
        await opened.writer.append(draft("bundle"), effects=(RaiseSequence("main", 7),))
        assert (await conflict_of(opened, RaiseSequence("main", 6))).code == "stale_state"
        assert (await opened.store.sequence("main"), await opened.store.sequence("other")) == (7, 0)


async def test_expired_rows_are_dropped_when_the_store_is_tidied(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft("outcome"), effects=(claim(), SaveAnswer(LOG, "c1", ANSWER, keep_seconds=1)))
        opened.clock.advance(120)
        await asyncio.to_thread(opened.appender.tidy)
        reader = sqlite3.connect(opened.path)
        left = [reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("keys", "answers")]
        reader.close()
    assert left == [0, 0]


async def test_reads_are_refused_when_the_store_is_closed(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        pass
    with pytest.raises(StoreUnavailable, match="store_closed"):
        await opened.store.switches()
    with pytest.raises(StoreUnavailable, match="store_closed"):
        opened.appender.append_batch([])
    with pytest.raises(LedgerUnavailable):
        await opened.writer.append(draft())


async def test_records_are_paged_in_order_when_read(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        for number in range(5):
            await opened.writer.append(draft(call=f"c{number}"))
        page = await opened.store.records(LOG, 2, 2)
        assert [record.seq for record in page] == [2, 3]
        assert await opened.store.records(OTHER_LOG, 0, 10) == ()
        assert await opened.store.logs() == (LOG,)
        assert [intent.call for intent in await opened.store.open_intents(10)] == [f"c{number}" for number in range(5)]


async def test_store_file_is_private_when_created(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft())
        assert {file.stat().st_mode & 0o777 for file in opened.path.parent.iterdir()} == {0o600}
        assert opened.path.parent.stat().st_mode & 0o777 == 0o700


def test_tenant_keys_differ_when_tenant_or_purpose_does() -> None:
    derived = {KEYS.key("acme", "seal"), KEYS.key("rival", "seal"), KEYS.record_key("acme"), KEYS.attach_key("acme")}
    assert len(derived) == 4
