"""The mutation matrix: every mutation of a good bundle given to OPA and to us, and the page that shows the verdicts.

``python -m tests.integration.opa_matrix --write docs/opa-interop.md`` writes the page; a test compares what is
committed with what this run finds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.integration.mutations import OPA_RULES, RULES, Mutation
from tests.integration.mutations_of_archives import MUTATIONS
from tests.integration.opa_verdicts import Origin, Verdict, opa_bundle, opa_verdict, our_bundle, our_verdict
from tests.integration.signed_drafts import draft_of

WORKERS_COUNT = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One mutation of one bundle, judged twice."""

    mutation: Mutation
    origin: str
    by_us: Verdict
    by_opa: Verdict

    @property
    def relation(self) -> str:
        """``same``, or which side is stricter."""
        if self.by_us.loads == self.by_opa.loads:
            return "same"
        return "we are stricter" if self.by_opa.loads else "OPA is stricter"


def rows_of(origin: Origin, mutations: Sequence[Mutation] = MUTATIONS) -> list[Row]:
    """Every mutation that this bundle can suffer, judged by both."""
    wanted = [mutation for mutation in mutations if _fits(mutation, origin)]
    with ThreadPoolExecutor(WORKERS_COUNT) as pool:
        return list(pool.map(lambda mutation: _row(mutation, origin), wanted))


def _fits(mutation: Mutation, origin: Origin) -> bool:
    members = draft_of(origin.raw, origin.key, origin.public).members
    return any(name.endswith(mutation.needs) for name in members)


def _row(mutation: Mutation, origin: Origin) -> Row:
    draft = draft_of(origin.raw, origin.key, origin.public)
    mutation.change(draft)
    raw = draft.pack()
    return Row(mutation, origin.name, our_verdict(raw, origin), opa_verdict(raw, origin))


def all_rows(folder: Path) -> list[Row]:
    """The matrix for a bundle of ours and for one of OPA's."""
    return rows_of(our_bundle(folder / "ours")) + rows_of(opa_bundle(folder / "theirs"))


def page(rows: Sequence[Row]) -> str:
    """The page of these rows."""
    by_mutation: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_mutation.setdefault(f"{row.mutation.layer}: {row.mutation.name}", {})[row.origin] = row
    same = sum(row.relation == "same" for row in rows)
    stricter = sum(row.relation == "we are stricter" for row in rows)
    lines = [
        "# Bundles between OPA and Tidegate",
        "",
        "<!-- Written by `python -m tests.integration.opa_matrix --write docs/opa-interop.md`; a test compares it. -->",
        "",
        _INTRODUCTION.format(rows=len(rows), same=same, stricter=stricter, looser=len(rows) - same - stricter),
        "## Where we are stricter, and why",
        "",
        *(f"- **{rule}**: {reason}" for rule, reason in RULES.items()),
        "",
        "## Where OPA is stricter",
        "",
        *(f"- **{rule}**: {reason}" for rule, reason in OPA_RULES.items()),
        "",
        "## The matrix",
        "",
        "*Ours* is a bundle of `tidegate bundle build`, *theirs* one of `opa build --signing-key --claims-file`. Each cell",
        "is our verdict, then OPA's; a dash means that the bundle has nothing to spoil there.",
        "",
    ]
    layer = ""
    for row in (next(iter(pair.values())) for pair in by_mutation.values()):
        if row.mutation.layer != layer:
            layer = row.mutation.layer
            lines += [
                "",
                f"### {layer.capitalize()}",
                "",
                "| what is spoilt | ours | theirs | rule |",
                "|---|---|---|---|",
            ]
        pair = by_mutation[f"{layer}: {row.mutation.name}"]
        rule = row.mutation.rule if any(cell.relation != "same" for cell in pair.values()) else None
        lines.append(f"| {row.mutation.name} | {_cell(pair, 'tidegate')} | {_cell(pair, 'opa')} | {rule or ''} |")
    return "\n".join(lines) + "\n"


_INTRODUCTION = """A signed bundle is an ordinary OPA bundle. One that `opa build --signing-key --claims-file` made is
verified and loaded here, and one that `tidegate bundle build` or `sign` made is verified and run by `opa run` and
`opa build --bundle --verification-key`. Claims that OPA does not know ride along: `tidegate_name`, `tidegate_seq`,
`tidegate_epoch`, `aud`, `exp`, `nbf`.

A bundle of OPA's needs these claims in the claims file, with `scope` and `keyid`. Without our manifest metadata it has no
profile and no module, so it runs on `engine: opa` alone.

Every mutation below was given to both readers with the same key: {rows} verdicts, {same} the same, {stricter} where we
refuse what OPA loads, {looser} where OPA refuses what our signature check lets pass.
"""


def _cell(pair: dict[str, Row], origin: str) -> str:
    row = pair.get(origin)
    if row is None:
        return "\u2013"
    ours = "loads" if row.by_us.loads else f"`{row.by_us.refused}`"
    return f"{ours}, {'loads' if row.by_opa.loads else 'refused'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the page was written or, without ``--write``, printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.opa_matrix")
    parser.add_argument("--write", type=Path, help="where the page goes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="opa-matrix-") as scratch:
        text = page(all_rows(Path(scratch)))
    if options.write is None:
        print(text, end="")
    else:
        options.write.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
