"""Rebuild `rego/built` from the Rego, cases and manifests beside it: `python -m tests.rego.rebuild [--check]`.

Guarantees: the same sources give the same bytes wherever they lie, because it is the ordinary bundle build that compiles
them, under the names they have in a bundle. Leaves to the tests to compare what is committed with what is rebuilt.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import rego
from bundles.build import compile_policy
from bundles.canonical import sha256_hex
from bundles.compiler import find_opa
from bundles.content import PROBES_FOLDER, WASM_FILE
from bundles.source import sources_digest

STARTER = rego.root() / "starter"
BUILT = rego.root() / "built"


def rebuild(source: Path = STARTER) -> dict[str, bytes]:
    """Everything that belongs into `rego/built`, by relative name; raises `BundleError` as a build does."""
    policy = compile_policy(source, opa=find_opa(), agreement=None, progress=lambda step: None)
    digests = {
        WASM_FILE: sha256_hex(policy.files[WASM_FILE]),
        "sources": sources_digest({name: raw for name, raw in policy.files.items() if name.endswith(".rego")}),
        "cacheable": "yes" if policy.cacheable else "no",
    }
    built = {name: raw for name, raw in policy.files.items() if name == WASM_FILE or name.startswith(PROBES_FOLDER)}
    return {**built, "digests.json": json.dumps(digests, indent=2).encode() + b"\n"}


def committed(built: Path = BUILT) -> dict[str, bytes]:
    """What `rego/built` holds now, by relative name."""
    files = (path for path in built.rglob("*") if path.is_file())
    return {path.relative_to(built).as_posix(): path.read_bytes() for path in files}


def main(arguments: list[str]) -> int:
    """Write `rego/built`, or with `--check` say whether it is current; 0 done, 1 differs, 2 usage."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    wanted = rebuild()
    if arguments:
        present = committed()
        differing = sorted(name for name in wanted | present if wanted.get(name) != present.get(name))
        print("\n".join(differing) or "rego/built is current")
        return 1 if differing else 0
    shutil.rmtree(BUILT, ignore_errors=True)
    for name, content in wanted.items():
        (BUILT / name).parent.mkdir(parents=True, exist_ok=True)
        (BUILT / name).write_bytes(content)
    print(f"rego/built: {len(wanted)} files, {WASM_FILE} {len(wanted[WASM_FILE])} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
