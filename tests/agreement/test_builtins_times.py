"""The host's ``time.*`` beside OPA's, with the same zone database: on hand-made edges and on drawn operands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from random import Random

import pytest

from pdp.wasm.builtins.time_layouts import LAYOUTS, NAMED
from pdp.wasm.builtins.times import BUILTINS
from pdp.wasm.builtins.values import Declined, RegoSet, Value
from tests.agreement import time_operands as operands
from tests.agreement.builtin_values import Comparison, Operands, compare
from tests.pdp.wasm.builtins import test_durations, test_time_layouts, test_times, test_zones

SEED = 20_261
DRAWN = 1_000
SOAK_TIMES = 20
EARLY = "an instant before 1970 in a time zone"
UNCLEAR = "an instant that is all but a whole number"
LONG = "an instant that is a very long number"
MACHINE = "a time zone that only the machine knows"
OF_INSTANTS = frozenset((EARLY, UNCLEAR, LONG, MACHINE))
OF_LAYOUTS = frozenset(("a layout of times that is not among those the host knows",))


@dataclass(frozen=True, slots=True)
class Family:
    """How operands of one builtin are drawn, the least share that is answered, and what may be declined."""

    draw: Callable[[Random], Operands]
    answered: float
    reasons: frozenset[str]


def _one(draw: Callable[[Random], Value]) -> Callable[[Random], Operands]:
    return lambda source: (draw(source),)


FAMILIES = {
    "time.clock": Family(_one(operands.instant), 0.7, OF_INSTANTS),
    "time.date": Family(_one(operands.instant), 0.7, OF_INSTANTS),
    "time.weekday": Family(_one(operands.instant), 0.7, OF_INSTANTS),
    "time.format": Family(_one(operands.laid_out), 0.8, OF_INSTANTS | OF_LAYOUTS),
    "time.diff": Family(lambda source: (operands.instant(source), operands.instant(source)), 0.5, OF_INSTANTS),
    "time.add_date": Family(
        lambda source: (operands.instant(source), *(operands.step(source) for _ in range(3))),
        0.18,
        OF_INSTANTS | {"a whole number with a point, as a part of a date", "a very large part of a date"},
    ),
    "time.parse_duration_ns": Family(_one(operands.duration), 0.4, frozenset()),
    "time.parse_rfc3339_ns": Family(
        lambda source: (operands.text_of(source, "2006-01-02T15:04:05Z07:00"),), 0.35, frozenset()
    ),
    "time.parse_ns": Family(operands.to_parse, 0.25, OF_LAYOUTS | {"a time with the abbreviation of a zone"}),
}


@pytest.fixture(autouse=True)
def _same_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPA reads the package's zones; without this, it would read the machine's, which may be older or built otherwise."""
    monkeypatch.setenv("ZONEINFO", str(files("tzdata") / "zoneinfo"))


def _reasons(name: str, declined: Iterable[Operands]) -> set[str]:
    found = set()
    for call in declined:
        with pytest.raises(Declined) as refused:
            BUILTINS[name](*call)
        found.add(str(refused.value))
    return found


def _drawn(opa: Path, name: str, seed: int, count: int) -> Comparison:
    source = Random(f"{name} {seed}")
    return compare(opa, name, BUILTINS[name], [FAMILIES[name].draw(source) for _ in range(count)])


def _check(name: str, found: Comparison, count: int) -> None:
    family = FAMILIES[name]
    assert found.differing == []
    assert _reasons(name, found.declined) <= family.reasons
    assert found.agreeing_count >= family.answered * count
    assert found.undefined_count > 0


def test_every_builtin_is_compared() -> None:
    assert FAMILIES.keys() == BUILTINS.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_host_agrees_with_opa_when_operands_are_drawn(name: str, opa_path: Path) -> None:
    _check(name, _drawn(opa_path, name, SEED, DRAWN), DRAWN)


@pytest.mark.parametrize("machine", ["Europe/London", "Europe/Berlin"])
def test_host_agrees_with_opa_when_the_machine_is_elsewhere(
    machine: str, opa_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", machine)
    for name in ("time.parse_ns", "time.format"):
        _check(name, _drawn(opa_path, name, SEED + 2, DRAWN), DRAWN)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", FAMILIES)
def test_host_agrees_with_opa_when_many_operands_are_drawn(name: str, opa_path: Path) -> None:
    _check(name, _drawn(opa_path, name, SEED + 1, DRAWN * SOAK_TIMES), DRAWN * SOAK_TIMES)


def _edges(name: str) -> list[Operands]:
    """Every case of the tests without OPA, so that what they expect is what OPA answers."""
    short = name.removeprefix("time.")
    cases: list[Operands] = [case[1] for case in test_times.ANSWERS.values() if case[0] == short]
    cases += [case[1] for case in test_times.UNDEFINED.values() if case[0] == short]
    rest: tuple[Value, ...] = {"diff": (0,), "add_date": (1, 1, 1)}.get(short, ())
    if not short.startswith("parse_"):
        wrong = [value for value in test_times.NO_INSTANTS.values() if not isinstance(value, RegoSet)]
        cases += [
            (value, *rest) for value in (*wrong, *operands.NO_INSTANTS, *operands.WHOLE_DECIMALS, *operands.EDGES)
        ]
        cases += [([0, zone], *rest) for zone in (*test_zones.NOWHERE.values(), *operands.NO_ZONES)]
        cases += [([case[1] * 10**9, case[0]], *rest) for case in test_zones.OFFSETS.values()]
    if short == "format":
        cases += [([0, "UTC", layout],) for layout in (*NAMED, *LAYOUTS)]
    if short == "parse_ns":
        cases += [case[:2] for case in (*test_time_layouts.READ.values(), *test_time_layouts.UNDEFINED.values())]
    if short == "parse_rfc3339_ns":
        texts = (*test_time_layouts.READ.values(), *test_time_layouts.UNDEFINED.values())
        cases += [(case[1],) for case in texts if case[0] == "RFC3339"]
    if short == "parse_duration_ns":
        cases += [(case[0],) for case in test_durations.READ.values()]
        cases += [(text,) for text in test_durations.UNDEFINED.values()]
    return cases


@pytest.mark.parametrize("name", FAMILIES)
def test_host_agrees_with_opa_when_operands_are_edges(name: str, opa_path: Path) -> None:
    cases = _edges(name)
    found = compare(opa_path, name, BUILTINS[name], cases)
    assert found.differing == []
    assert found.declined == []
    assert found.agreeing_count + found.undefined_count == len(cases) > 20


def test_host_agrees_with_opa_when_clocks_change_in_any_zone(opa_path: Path) -> None:
    calls: list[Operands] = []
    for index, zone in enumerate(operands.ZONES):
        year = (1970, 1975, 1988, 1999, 2007, 2016, 2026, 2038, 2105, 2261)[index % 10]
        changes = (*operands.changes(zone, year), *operands.changes(zone, 1995), index * 15_000_000)
        calls += [([(second + step) * 10**9, zone, "UnixDate"],) for second in changes for step in (-1, 0)]
    calls = [call for call in calls if call[0][0] >= 0]  # type: ignore[index, operator]
    found = compare(opa_path, "time.format", BUILTINS["time.format"], calls)
    assert found.differing == []
    assert found.declined == []
    assert found.agreeing_count == len(calls) > 2_000
