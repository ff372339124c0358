"""Digests: the host's are OPA's, for texts and keys of every length and every kind of character."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pdp.wasm.builtins.digests import BUILTINS
from pdp.wasm.builtins.values import Value
from tests.agreement.builtin_values import Operands, compare

ONE = ("crypto.md5", "crypto.sha1", "crypto.sha256")
KEYED = ("crypto.hmac.md5", "crypto.hmac.sha1", "crypto.hmac.sha256", "crypto.hmac.sha512")
EQUAL = "crypto.hmac.equal"

TEXTS = {
    "empty": "",
    "a letter": "a",
    "a line": "a\n",
    "a NUL": "\u0000",
    "a NUL at the end": "a\u0000",
    "letters beyond ASCII": "\u00e9\u00df\u0130",
    "decomposed": "e\u0301",
    "beyond the basic plane": "\U0001f600\U0010ffff",
    "noncharacters": "\ufffe\uffff\ufeff",
    "a separator of lines": "\u2028",
    "escapes": '"\\/\b\f\u007f\u001b<&>',
    "a block less one": "x" * 63,
    "a block": "x" * 64,
    "a block and one": "x" * 65,
    "a longer block less one": "x" * 127,
    "a longer block": "x" * 128,
    "a longer block and one": "x" * 129,
    "where padding needs another block": "x" * 55 + "y",
    "a block in octets, not in characters": "\u00e9" * 32,
    "much": "0123456789abcdef" * 4096,
}

WRONG: tuple[Value, ...] = (None, True, False, 0, -1, [], ["a"], {}, {"a": "b"})


def _draw_text(source: random.Random) -> Value:
    if source.random() < 0.03:
        return source.choice(WRONG)
    if source.random() < 0.2:
        return source.choice(list(TEXTS.values()))[:200]
    alphabet = source.choice(("ab", 'a\u0000\n"\\', "\u00e9\u4e2d\U0001f600", "0123456789abcdef"))
    return "".join(source.choices(alphabet, k=source.choice((1, 5, 20, 64, 65, 130))))


def _draw_pair(source: random.Random) -> Operands:
    first = _draw_text(source)
    if source.random() < 0.3:
        return first, first
    if isinstance(first, str) and first and source.random() < 0.3:
        at = source.randrange(len(first))
        return first, first[:at] + source.choice(("", "a", "\u00e9", first[at].upper())) + first[at + 1 :]
    return first, _draw_text(source)


def _check_drawn(opa: Path, seed: int, count: int) -> None:
    source = random.Random(seed)
    for name in ONE:
        one = [(_draw_text(source),) for _ in range(count)]
        found = compare(opa, name, BUILTINS[name], one)
        assert (found.differing, found.declined) == ([], [])
        assert found.agreeing_count > 0.9 * count
    for name in (*KEYED, EQUAL):
        pairs = [_draw_pair(source) for _ in range(count)]
        found = compare(opa, name, BUILTINS[name], pairs)
        assert (found.differing, found.declined) == ([], [])
        assert found.agreeing_count > 0.9 * count


@pytest.mark.parametrize("name", ONE)
def test_digests_answer_as_opa_when_texts_are_odd(opa_path: Path, name: str) -> None:
    found = compare(opa_path, name, BUILTINS[name], [(text,) for text in TEXTS.values()])
    assert (found.differing, found.declined, found.agreeing_count) == ([], [], len(TEXTS))


@pytest.mark.parametrize("name", [*KEYED, EQUAL])
def test_keyed_digests_answer_as_opa_when_texts_and_keys_are_odd(opa_path: Path, name: str) -> None:
    calls = [(text, key) for text in TEXTS.values() for key in TEXTS.values()]
    found = compare(opa_path, name, BUILTINS[name], calls)
    assert (found.differing, found.declined, found.agreeing_count) == ([], [], len(calls))


def test_digests_are_undefined_as_in_opa_when_an_operand_is_no_text(opa_path: Path) -> None:
    for name in ONE:
        found = compare(opa_path, name, BUILTINS[name], [(value,) for value in WRONG])
        assert (found.differing, found.declined, found.undefined_count) == ([], [], len(WRONG))
    for name in (*KEYED, EQUAL):
        calls: list[Operands] = [*((value, "a") for value in WRONG), *(("a", value) for value in WRONG)]
        found = compare(opa_path, name, BUILTINS[name], calls)
        assert (found.differing, found.declined, found.undefined_count) == ([], [], len(calls))


def test_digests_agree_with_opa_when_drawn(opa_path: Path) -> None:
    _check_drawn(opa_path, 51, 1000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_digests_agree_with_opa_when_many_are_drawn(opa_path: Path) -> None:
    for seed in range(52, 72):
        _check_drawn(opa_path, seed, 1000)
