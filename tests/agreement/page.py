"""The page that shows how the embedded engine stands against OPA's own cases, family by family.

``python -m tests.agreement.page --write docs/engine-agreement.md`` judges every case and writes it; the long form of the
tests compares what is committed with what comes out.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

from tests.agreement.cases import all_cases
from tests.agreement.judging import Judge, Judgement
from tools.opa.build import TOOLS, pinned_version

CACHE = TOOLS / "agreement"
WORKERS_COUNT = 2
_CHUNK_COUNT = 20


def judged(numbers: Iterable[int], *, workers_count: int = WORKERS_COUNT) -> list[Judgement]:
    """The judgements of the cases with these numbers, in order."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers_count) as pool:
        return list(pool.map(_judgement, numbers, chunksize=_CHUNK_COUNT))


def _judgement(number: int) -> Judgement:
    return _judge().judge(all_cases()[number])


@cache
def _judge() -> Judge:
    return Judge(TOOLS / "opa", CACHE)


def page(judgements: Sequence[Judgement]) -> str:
    """The page of these judgements."""
    ends = Counter(str(judgement.end) for judgement in judgements)
    by_family: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_family.setdefault(judgement.family, []).append(judgement)
    lines = [
        "# The embedded engine against OPA's own cases",
        "",
        "<!-- Written by `python -m tests.agreement.page --write docs/engine-agreement.md`; the long tests compare it. -->",
        "",
        _INTRODUCTION.format(version=pinned_version(), cases=len(judgements), **_counts(ends)),
        "## By family",
        "",
        "| family | cases | accepted | agree | error as wanted | differ | refused at build, for |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, members in sorted(by_family.items()):
        lines.append(_row(family, members))
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
| accepted, and the answer is another one | **{differs}** |
| refused at build, naming builtin or finding and its line | {refused} |
| cannot be asked of a bundle: an input that is no object, a query over all of `data` | {unasked} |

A refused policy runs on `engine: opa` unchanged.

## Drawn policies

`tests/agreement/programs.py` draws policies and inputs from a seed inside the profile; both engines answer them. 300 pairs are
compared in every run of the tests, 10,000 by `make soak`. A difference is made smaller and printed whole, with its seed.

What the drawing found is refused at build since: calculating with fractions (OPA adds in binary, its Wasm in decimal), `ceil` and
`floor` (1 and 0 for -0.5 in OPA's own engine), `indexof` with an empty text (undefined there, 0 here), `json.marshal` (escapes
differ), and literals of different sizes compared (`not [x] == []` is lost).

## What is not refused, and differs

- **Order.** OPA goes through sets and objects in sorted order, its Wasm in another. A list collected from one, as
  `[name | some name, _ in input.table]`, a text joined from a set or written from an object, may come out in another order.
  Collect into a set, or `sort` before it matters.
- **0 / 0** is undefined in OPA and ends the decision as `engine_failed` here: nothing is allowed by it.
- **Calculated numbers beyond 64 bits or below a millionth** are spelled differently when they are written into a text.
"""


def _counts(ends: Counter[str]) -> dict[str, int]:
    return {
        "agrees": ends["agrees"],
        "errors": ends["error as wanted"],
        "differs": ends["differs"],
        "refused": ends["refused"],
        "unasked": ends["cannot be asked"],
    }


def _row(family: str, members: Sequence[Judgement]) -> str:
    ends = Counter(member.end for member in members)
    accepted = ends["agrees"] + ends["error as wanted"] + ends["differs"]
    reasons = Counter(member.reason for member in members if member.end == "refused")
    named = ", ".join(f"`{reason}` {count}" for reason, count in sorted(reasons.items()))
    counts = (len(members), accepted, ends["agrees"], ends["error as wanted"], ends["differs"])
    return f"| {family} | " + " | ".join(map(str, counts)) + f" | {named} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when no accepted case differs, 1 when one does; the page is written or printed either way."""
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.page")
    parser.add_argument("--write", type=Path, help="where the page goes")
    options = parser.parse_args(arguments)
    found = judged(range(len(all_cases())))
    text = page(found)
    if options.write is None:
        print(text, end="")
    else:
        options.write.write_text(text, encoding="utf-8")
    for judgement in found:
        if judgement.end == "differs":
            print(f"{judgement.note}: {judgement.reason}: {judgement.detail}", file=sys.stderr)
    return int(any(judgement.end == "differs" for judgement in found))


if __name__ == "__main__":
    sys.exit(main())
