"""The page that shows how the embedded engine and the OPA adapter stand against OPA's own cases, family by family.

``python -m tests.agreement.page --write docs/engine-agreement.md`` judges every case twice and writes it; the long form of
the tests compares what is committed with what comes out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from tests.agreement.adapter import ORDINARY, OWN_BUNDLE, UNDEFINED, AdapterJudge, serving
from tests.agreement.cases import all_cases
from tests.agreement.judging import Judge, Judgement
from tools.opa.build import TOOLS, pinned_version

CACHE = TOOLS / "agreement"
WORKERS_COUNT = 2
_CHUNK_COUNT = 20
_CLEAN = get_context("spawn")
"""A worker that was forked while the engine's threads compile would wait for them for ever."""


def judged(numbers: Iterable[int], *, workers_count: int = WORKERS_COUNT) -> list[Judgement]:
    """The judgements of the cases with these numbers, in order."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers_count, _CLEAN) as pool:
        return list(pool.map(_judgement, numbers, chunksize=_CHUNK_COUNT))


def _judgement(number: int) -> Judgement:
    return _judge().judge(all_cases()[number])


@cache
def _judge() -> Judge:
    return Judge(TOOLS / "opa", CACHE)


@cache
def asked(numbers: range) -> tuple[Judgement, ...]:
    """The judgements of the same cases through the OPA adapter, in order, made once a run; each worker has a server."""
    size = -(-len(numbers) // WORKERS_COUNT)
    parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    with ProcessPoolExecutor(WORKERS_COUNT, _CLEAN) as pool:
        return tuple(judgement for part in pool.map(_asked, parts) for judgement in part)


def _asked(numbers: range) -> list[Judgement]:
    return asyncio.run(_through_adapter(numbers))


async def _through_adapter(numbers: range) -> list[Judgement]:
    with tempfile.TemporaryDirectory(prefix="agreement-") as folder, serving(Path(folder)) as server:
        async with AdapterJudge.at(server, TOOLS / "opa") as judge:
            return [await judge.judge(all_cases()[number]) for number in numbers]


def page(judgements: Sequence[Judgement], through_adapter: Sequence[Judgement]) -> str:
    """The page of these judgements: by the embedded engine, and through the OPA adapter."""
    ends = Counter(str(judgement.end) for judgement in judgements)
    by_family, through_by_family = _by_family(judgements), _by_family(through_adapter)
    lines = [
        "# The embedded engine and the OPA adapter against OPA's own cases",
        "",
        "<!-- Written by `python -m tests.agreement.page --write docs/engine-agreement.md`; the long tests compare it. -->",
        "",
        _INTRODUCTION.format(version=pinned_version(), cases=len(judgements), **_counts(ends)),
        *_of_the_adapter(through_adapter),
        _MORE,
        "## By family",
        "",
        "The four columns that begin with **opa** are the adapter's: agree, error as wanted, differ, cannot be asked.",
        "",
        "| family | cases | accepted | agree | error as wanted | declined | differ "
        "| opa: agree | opa: error | opa: differ | opa: not asked | refused at build, for |",
        "|" + "---|" * 12,
    ]
    for family, members in sorted(by_family.items()):
        lines.append(_row(family, members, through_by_family[family]))
    declined = Counter((one.reason, one.detail) for one in judgements if one.end == "declined")
    lines += ["", "## What was declined", "", "| builtin | for | cases |", "|---|---|---|"]
    lines += [f"| `{name}` | {_cell(reason)} | {count} |" for (name, reason), count in sorted(declined.items())]
    refused = Counter(judgement.reason for judgement in judgements if judgement.end == "refused")
    lines += ["", "## What was refused", "", "| builtin or finding | cases |", "|---|---|"]
    lines += [
        f"| `{reason}` | {count} |" for reason, count in sorted(refused.items(), key=lambda one: (-one[1], one[0]))
    ]
    return "\n".join(lines) + "\n"


_INTRODUCTION = """OPA ships {cases} evaluation cases for Rego version 1 inside its Go module (here {version}); nothing of them is
copied. Each is compiled to Wasm under `rego/capabilities.json`, put through the profile's lint, and evaluated by the engine
that decides in the gate. A set has no order; everything else must be equal.

| | cases |
|---|---|
| accepted by the profile, and the value is OPA's | {agrees} |
| accepted, and the wanted error ends the decision as `engine_failed` | {errors} |
| accepted, and a builtin of the host declines: the decision ends as `engine_failed` | {declined} |
| accepted, and the answer is another one | **{differs}** |
| refused at build, naming builtin or finding and its line | {refused} |
| cannot be asked of a bundle: an input that is no object, a query over all of `data` | {unasked} |

A refused policy runs on `engine: opa` unchanged.
"""

_ADAPTER = """## Through the OPA adapter

The same {cases} cases, also those that the profile refuses, are put into a real OPA server and asked as the gate asks with
`engine: opa`: through the adapter, which takes one answer of the trusted revision in time and nothing else. A query without a
result is an undefined decision there.

| | cases |
|---|---|
| the value is the one that is wanted, or undefined where none is | {agrees} |
| the wanted error ends the decision as `engine_failed` | {errors} |
| the answer is another one | **{differs}** |
| cannot be asked of a server | {unasked} |

Of those that agree, {undefined} are undefined, and the adapter says so. {ordinary} want an error in strict mode, which
the adapter does not ask for; they are compared with `opa eval` in its ordinary mode. {own} have modules that call each other, which OPA's
REST API cannot be given one by one; they are served as bundles of their own.

What cannot be asked, and why:

| reason | cases | which |
|---|---|---|"""

_MORE = """
## Drawn policies

`tests/agreement/programs.py` draws policies and inputs from a seed inside the profile; both engines answer them. 300 pairs are
compared in every run of the tests, 10,000 by `make soak`. A difference is made smaller and printed whole, with its seed.

What the drawing found is refused at build since: calculating with fractions (OPA adds in binary, its Wasm in decimal), `ceil` and
`floor` (1 and 0 for -0.5 in OPA's own engine), `indexof` with an empty text (undefined there, 0 here), `json.marshal` (escapes
differ), and literals of different sizes compared (`not [x] == []` is lost).

Reading OPA's Wasm library and trying it by hand found the rest: `strings.replace_n` of several pairs (one pass there, one after the
other here), `object.union_n` (`[]` is undefined here), numbers written `1.0` or `15e-1` (not found in lists and objects here),
`regex.find_all_string_submatch_n` with a count below -1 (nothing here, all there) or a loop over what may be nothing, and `\\B` beside
letters beyond ASCII. `tests/agreement/test_native.py` holds what is left against `opa eval`.

## Builtins of the host

Cases alone would prove little: OPA has 16 for `sprintf`. Each builtin that the host answers (`docs/writing-policy.md`) is also asked
with drawn operands, ordinary, odd and of the wrong type, beside `opa eval`: `tests/agreement/test_builtins_*.py`, some thousands in
every run, twenty times as many by `make soak`. A call ends in OPA's answer, undefined where OPA errs, or declined; drawn policies call
them, too.

## What is not refused, and differs

- **Order.** OPA goes through sets and objects in sorted order, its Wasm in another. A list collected from one, as
  `[name | some name, _ in input.table]`, a text joined from a set or written from an object, may come out in another order.
  Collect into a set, or `sort` before it matters.
- **0 / 0** is undefined in OPA and ends the decision as `engine_failed` here: nothing is allowed by it.
- **Calculated numbers beyond 64 bits** are rounded by OPA (`a * b == round(a * b)` is false there for large ones) and not here. They,
  and those below a millionth, are spelled differently when they are written into a text.
- **A fraction below a hundred-thousandth** in the question or in data, as 0.000001, is not found here as the key of an object.
- **`upper` and `lower`** leave 43 letters alone that Unicode got after version 13: Vithkuqi, and a few of Latin and Glagolitic.
"""


def _by_family(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    found: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        found.setdefault(judgement.family, []).append(judgement)
    return found


def _of_the_adapter(judgements: Sequence[Judgement]) -> list[str]:
    agreeing = [judgement for judgement in judgements if judgement.end == "agrees"]
    details = Counter(judgement.detail for judgement in agreeing)
    reasons = Counter(judgement.reason for judgement in agreeing)
    counts = _counts(Counter(str(judgement.end) for judgement in judgements))
    text = _ADAPTER.format(
        cases=len(judgements),
        undefined=details[UNDEFINED],
        ordinary=reasons[ORDINARY],
        own=reasons[OWN_BUNDLE],
        **counts,
    )
    unasked: dict[str, list[str]] = {}
    for judgement in judgements:
        if judgement.end == "cannot be asked":
            unasked.setdefault(judgement.reason, []).append(judgement.note)
    rows = sorted(unasked.items(), key=lambda one: (-len(one[1]), one[0]))
    return [text, *(f"| {_cell(reason)} | {len(notes)} | {_cell(', '.join(notes))} |" for reason, notes in rows)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _counts(ends: Counter[str]) -> dict[str, int]:
    return {
        "agrees": ends["agrees"],
        "errors": ends["error as wanted"],
        "declined": ends["declined"],
        "differs": ends["differs"],
        "refused": ends["refused"],
        "unasked": ends["cannot be asked"],
    }


def _row(family: str, members: Sequence[Judgement], through_adapter: Sequence[Judgement]) -> str:
    ends = Counter(member.end for member in members)
    through = Counter(member.end for member in through_adapter)
    accepted = ends["agrees"] + ends["error as wanted"] + ends["declined"] + ends["differs"]
    reasons = Counter(member.reason for member in members if member.end == "refused")
    named = ", ".join(f"`{reason}` {count}" for reason, count in sorted(reasons.items()))
    counts = (
        *(len(members), accepted, ends["agrees"], ends["error as wanted"], ends["declined"], ends["differs"]),
        *(through["agrees"], through["error as wanted"], through["differs"], through["cannot be asked"]),
    )
    return f"| {family} | " + " | ".join(map(str, counts)) + f" | {named} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when no case that was answered differs, 1 when one does; the page is written or printed either way."""
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.page")
    parser.add_argument("--write", type=Path, help="where the page goes")
    options = parser.parse_args(arguments)
    numbers = range(len(all_cases()))
    found, through_adapter = judged(numbers), asked(numbers)
    text = page(found, through_adapter)
    if options.write is None:
        print(text, end="")
    else:
        options.write.write_text(text, encoding="utf-8")
    differing = [judgement for judgement in (*found, *through_adapter) if judgement.end == "differs"]
    for judgement in differing:
        print(f"{judgement.note}: {judgement.reason}: {judgement.detail}", file=sys.stderr)
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
