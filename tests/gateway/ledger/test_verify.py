"""Every way of changing a log is found, and its place named."""

from __future__ import annotations

import json

import pytest

from gateway.ledger.record import GENESIS_HASH, RECORD_MAX_BYTES, LogId, Position, freeze, leaf_hash, seal
from gateway.ledger.verify import LogBroken, LogHead, LogVerifier
from tests.gateway.store.build import LOG, OTHER_LOG, draft


def chain(count: int, *, log: LogId = LOG, prev: str = GENESIS_HASH, first: int = 0) -> list[bytes]:
    records: list[bytes] = []
    for seq in range(first, first + count):
        records.append(
            seal(freeze(draft(log=log, call=f"c{seq}"), node="n"), Position(seq, prev, (1000 + seq, 0), 1000))
        )
        prev = leaf_hash(records[-1])
    return records


def check(records: list[bytes], head: LogHead | None = None, *, log: LogId = LOG) -> None:
    verifier = LogVerifier(log)
    for record in records:
        verifier.feed(record)
    if head is not None:
        verifier.finish(head)


GOOD = chain(6)
HEAD = LogHead(LOG, 6, leaf_hash(GOOD[-1]))


def test_verifier_accepts_when_nothing_was_changed() -> None:
    check(GOOD, HEAD)


def test_verifier_finds_it_when_any_byte_is_flipped() -> None:
    for at in range(len(GOOD[2])):
        changed = bytearray(GOOD[2])
        changed[at] ^= 1
        with pytest.raises(LogBroken) as caught:
            check([*GOOD[:2], bytes(changed), *GOOD[3:]], HEAD)
        assert caught.value.seq in (2, 3)


def spaced(record: bytes) -> bytes:
    return record.replace(b'"v":1', b'"v": 1')


def members(record: bytes, **changes: object) -> bytes:
    document = json.loads(record) | changes
    kept = {name: value for name, value in document.items() if value != "gone"}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("records", "code", "seq"),
    [
        pytest.param([*GOOD[:2], *GOOD[3:]], "record_seq", 2, id="one dropped"),
        pytest.param([*GOOD[:2], GOOD[3], GOOD[2], *GOOD[4:]], "record_seq", 2, id="two swapped"),
        pytest.param([*GOOD[:3], GOOD[2], *GOOD[3:]], "record_seq", 3, id="one repeated"),
        pytest.param(GOOD[1:], "record_seq", 0, id="the first dropped"),
        pytest.param(GOOD[:5], "log_truncated", 5, id="the tail cut off"),
        pytest.param([*GOOD, *chain(1, prev=leaf_hash(GOOD[-1]), first=6)], "log_head", 7, id="one added"),
        pytest.param([*GOOD[:5], *chain(1, prev="b" * 64, first=5)], "record_prev", 5, id="spliced with another past"),
        pytest.param(
            [*GOOD[:5], *chain(1, prev=leaf_hash(GOOD[4]), first=5)[:0], members(GOOD[5], actor="mallory")],
            "log_head",
            6,
            id="the last one rewritten",
        ),
        pytest.param([spaced(GOOD[0]), *GOOD[1:]], "record_not_canonical", 0, id="a space added"),
        pytest.param([b"{", *GOOD[1:]], "record_not_canonical", 0, id="no JSON"),
        pytest.param([b"x" * (48 * 1024 + 1)], "record_not_canonical", 0, id="too large"),
        pytest.param([members(GOOD[0], action={"a": 1.5})], "record_not_canonical", 0, id="a float inside"),
        pytest.param([b"[]"], "record_members", 0, id="no object"),
        pytest.param([members(GOOD[0], mode="gone")], "record_members", 0, id="a member missing"),
        pytest.param([members(GOOD[0], extra=1)], "record_members", 0, id="a member too many"),
        pytest.param([members(GOOD[0], v=2)], "record_members", 0, id="another version"),
        pytest.param([members(GOOD[0], seq="0")], "record_members", 0, id="a number as text"),
        pytest.param([members(GOOD[0], prev="A" * 64)], "record_members", 0, id="no hash in prev"),
        pytest.param([members(GOOD[0], seq=True)], "record_members", 0, id="a truth for a number"),
        pytest.param([members(GOOD[0], prev=0)], "record_members", 0, id="a number in prev"),
        pytest.param([members(GOOD[0], prev="a" * 65)], "record_members", 0, id="a hash too long"),
        pytest.param([members(GOOD[0], hlc=[1])], "record_members", 0, id="half a clock"),
        pytest.param([members(GOOD[0], hlc=[1, 0, 0])], "record_members", 0, id="a clock and a half"),
        pytest.param([members(GOOD[0], hlc=None)], "record_members", 0, id="no clock"),
        pytest.param([members(GOOD[0], hlc=7)], "record_members", 0, id="a clock that is a number"),
        pytest.param([members(GOOD[0], hlc=[1, True])], "record_members", 0, id="a clock that counts truths"),
        pytest.param(chain(1, log=OTHER_LOG), "record_log", 0, id="another tenant's record"),
        pytest.param([GOOD[0], members(GOOD[1], hlc=[1, 0])], "record_hlc", 1, id="the clock goes back"),
        pytest.param([GOOD[0], members(GOOD[1], hlc=[1000, 0])], "record_hlc", 1, id="the clock stands still"),
    ],
)
def test_verifier_names_the_place_when_the_log_was_changed(records: list[bytes], code: str, seq: int) -> None:
    with pytest.raises(LogBroken) as caught:
        check(records, HEAD)
    assert (caught.value.code, caught.value.seq) == (code, seq)


def test_verifier_finds_it_when_the_store_skips_a_number() -> None:
    verifier = LogVerifier(LOG)
    verifier.feed(GOOD[0], 0)
    with pytest.raises(LogBroken) as caught:
        verifier.feed(GOOD[1], 2)
    assert caught.value.code == "record_missing"


def test_verifier_accepts_it_when_only_the_clocks_counter_rises() -> None:
    check([GOOD[0], members(GOOD[1], hlc=[1000, 1])])


@pytest.mark.parametrize(
    ("head", "code", "words"),
    [
        pytest.param(LogHead(LOG, 7, leaf_hash(GOOD[-1])), "log_truncated", "promises 7", id="promises one more"),
        pytest.param(LogHead(LOG, 5, leaf_hash(GOOD[4])), "log_head", "only 5", id="knows one less"),
        pytest.param(LogHead(LOG, 6, leaf_hash(GOOD[4])), "log_head", "another last", id="names another record"),
    ],
)
def test_verifier_says_what_is_wrong_when_the_head(head: LogHead, code: str, words: str) -> None:
    with pytest.raises(LogBroken, match=words) as caught:
        check(GOOD, head)
    assert (caught.value.code, caught.value.seq, caught.value.log) == (code, 6, LOG)


def test_verifier_takes_a_record_when_it_has_the_most_bytes_and_none_when_it_has_one_more() -> None:
    room = RECORD_MAX_BYTES - len(members(GOOD[0], actor=""))
    largest, larger = members(GOOD[0], actor="a" * room), members(GOOD[0], actor="a" * (room + 1))
    assert len(largest) == RECORD_MAX_BYTES
    check([largest])
    with pytest.raises(LogBroken, match="larger than a record may be"):
        check([larger])


def test_verifier_accepts_an_empty_tail_when_it_starts_at_the_end() -> None:
    LogVerifier(LOG, next_seq=6, prev=None).finish(HEAD)


def test_verifier_finds_it_when_an_empty_tail_starts_at_another_record() -> None:
    with pytest.raises(LogBroken) as caught:
        LogVerifier(LOG, next_seq=6, prev=leaf_hash(GOOD[4])).finish(HEAD)
    assert caught.value.code == "log_head"


def test_verifier_accepts_a_tail_when_it_starts_in_the_middle() -> None:
    verifier = LogVerifier(LOG, next_seq=3, prev=None)
    for record in GOOD[3:]:
        verifier.feed(record)
    verifier.finish(HEAD)


def test_verifier_accepts_an_empty_log_when_the_head_says_so() -> None:
    check([], LogHead(LOG, 0, GENESIS_HASH))
