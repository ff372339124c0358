"""Rebuild `rego/built` from the Rego and the cases beside it: `python tests/rego/rebuild.py [--check]`.

Guarantees: the same sources give the same bytes wherever they lie, because OPA sees them under the names they have in a
bundle (`lib/tidegate/*.rego`, `policies/<name>/*.rego`) and never under a path of this machine. Leaves to the tests to
compare what is committed with what is rebuilt.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
REGO = REPOSITORY / "rego"
OPA = REPOSITORY / ".tools" / "opa"
ENTRYPOINT = "tidegate/decision"
BUILD_SECONDS = 120


class RebuildFailed(Exception):
    """OPA refused the sources."""


def sources(rego: pathlib.Path = REGO) -> dict[str, bytes]:
    """The Rego of library and starter by its name in a bundle, without tests."""
    found: dict[str, bytes] = {}
    for folder, top in ((rego / "lib", "lib"), (rego / "starter" / "policies", "policies")):
        for path in folder.rglob("*.rego"):
            if not path.name.endswith("_test.rego"):
                found[f"{top}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return dict(sorted(found.items()))


def sources_digest(files: dict[str, bytes]) -> str:
    """SHA-256 over every name and content, in the order of the names, each preceded by its length."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        for part in (name.encode(), content):
            digest.update(str(len(part)).encode() + b":" + part)
    return digest.hexdigest()


def build_wasm(files: dict[str, bytes]) -> bytes:
    """`policy.wasm` of these sources, under the profile's capabilities; raises `RebuildFailed`."""
    with tempfile.TemporaryDirectory() as made:
        stage = pathlib.Path(made)
        for name, content in files.items():
            target = stage / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        command = [str(OPA), "build", "-t", "wasm", "-e", ENTRYPOINT]
        command += ["--capabilities", str(REGO / "capabilities.json"), "-o", "built.tar.gz", "lib", "policies"]
        ended = subprocess.run(command, cwd=stage, capture_output=True, timeout=BUILD_SECONDS, check=False)
        if ended.returncode != 0:
            raise RebuildFailed(ended.stderr.decode(errors="replace"))
        with tarfile.open(fileobj=io.BytesIO((stage / "built.tar.gz").read_bytes())) as archive:
            member = archive.extractfile("/policy.wasm")
            if member is None:
                raise RebuildFailed("OPA's bundle holds no policy.wasm")
            return member.read()


def cases(rego: pathlib.Path = REGO) -> dict[str, bytes]:
    """The cases of all starter policies as probes, by file name: what must be answered wherever the bundle is loaded."""
    found: dict[str, bytes] = {}
    for path in sorted((rego / "starter" / "policies").glob("*/cases/*.json")):
        case = json.loads(path.read_bytes())
        probe = {"input": case["input"], "decision": case["decision"]}
        text = json.dumps(probe, sort_keys=True, indent=1, ensure_ascii=False)
        found[f"{path.parent.parent.name}.{path.name}"] = text.encode() + b"\n"
    return found


def rebuild() -> dict[str, bytes]:
    """Everything that belongs into `rego/built`, by relative name."""
    files = sources()
    wasm = build_wasm(files)
    digests = {"policy.wasm": hashlib.sha256(wasm).hexdigest(), "sources": sources_digest(files)}
    built = {"policy.wasm": wasm, "digests.json": json.dumps(digests, indent=2).encode() + b"\n"}
    return built | {f"probes/{name}": content for name, content in cases().items()}


def committed(built: pathlib.Path = REGO / "built") -> dict[str, bytes]:
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
        differing = sorted(name for name in wanted.keys() | committed().keys() if wanted.get(name) != committed().get(name))
        print("\n".join(differing) or "rego/built is current")
        return 1 if differing else 0
    target = REGO / "built"
    shutil.rmtree(target, ignore_errors=True)
    for name, content in wanted.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    print(f"rego/built: {len(wanted)} files, policy.wasm {len(wanted['policy.wasm'])} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
