"""The measured bundle with more data: teams by name, as an export of a directory would give them, up to a wanted size.

The same size and variant always give the same bytes. The rules look a call's team up in this data, so each decision
goes through it. A later revision is the same policy with other data, signed anew: nothing of the build is needed again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

import rego
from benchmarks.measured import SOURCE
from bundles.archive import read_archive
from bundles.build import SigningOptions, sign_files
from bundles.claims import MANIFEST_FILE, SIGNATURES_FILE
from bundles.keys import load_private_key

OWNERS: Final = "owners/data.json"
GOVERNING: Final = "policies/tidegate/tidegate.rego"
KINDS: Final = ("incident", "request", "problem", "asset", "change", "contract", "invoice")
REGIONS: Final = ("eu", "us", "ap")


def sized_source(folder: Path, size_bytes: int, *, governed: bool = False) -> Path:
    """The measured bundle's source in `folder`, its data grown to `size_bytes`.

    `governed` adds the starter's policy for the gate's own operations, so that `/v1/enforcement` may be asked.
    """
    shutil.copytree(SOURCE, folder)
    if governed:
        (folder / GOVERNING).parent.mkdir()
        shutil.copy(rego.root() / "starter" / GOVERNING, folder / GOVERNING)
    (folder / OWNERS).write_bytes(sized_owners(size_bytes))
    return folder


def sized_owners(size_bytes: int, variant: int = 0) -> bytes:
    """The data that the rules look into, as JSON of at least `size_bytes`, or as it stands when that is more."""
    owners: dict[str, Any] = json.loads((SOURCE / OWNERS).read_bytes())
    written = len(_compact(owners))
    number = 0
    while written < size_bytes:
        name, team = _team(number, variant)
        owners["teams"][name] = team
        written += len(_compact({name: team})) - 1  # the braces go, a comma comes
        number += 1
    return _compact(owners)


def revised(archive: bytes, key: Path, size_bytes: int, sequence: int) -> bytes:
    """The next revision of a built bundle: other data of the same size, signed with `sequence`, which names it too."""
    files = read_archive(archive)
    del files[SIGNATURES_FILE]
    manifest = json.loads(files[MANIFEST_FILE])
    manifest["revision"] = f"measured-{sequence}"
    files[MANIFEST_FILE] = json.dumps(manifest).encode()
    files[OWNERS] = sized_owners(size_bytes, variant=sequence)
    return sign_files(files, load_private_key(key), SigningOptions(sequence=sequence))


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _team(number: int, variant: int) -> tuple[str, dict[str, Any]]:
    drawn = hashlib.sha256(f"{variant}:{number}".encode()).hexdigest()
    return f"group-{number:06d}", {
        "kinds": [KINDS[int(drawn[0], 16) % len(KINDS)], KINDS[int(drawn[1], 16) % len(KINDS)]],
        "limit": 1000 * (1 + int(drawn[2:4], 16)),
        "region": REGIONS[int(drawn[4], 16) % len(REGIONS)],
        "lead": f"{drawn[5:17]}@example.test",
        "members": [f"{drawn[place : place + 8]}@example.test" for place in range(20, 52, 8)],
        "cost_center": f"cc-{drawn[52:58]}",
    }
