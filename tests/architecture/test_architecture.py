"""The shape of the source: direction of imports, pure and shell, sizes. Read from syntax trees, nothing is run."""

from __future__ import annotations

import ast

import pytest

from tests.architecture import classification
from tests.architecture.source_tree import (
    PACKAGES,
    ROOT,
    Module,
    acts_of,
    functions_of,
    imports_of,
    modules,
    protocol_methods,
    resolve,
)

MODULE_MAX_LINES = 500
FUNCTION_MAX_LINES = 70
FUNCTION_MAX_ARGUMENTS = 6
IMPURE = frozenset(
    "aiohttp aiosqlite asyncio concurrent ctypes fcntl fileinput glob http importlib io logging mmap multiprocessing os"
    " random requests secrets select selectors shutil signal socket sqlalchemy sqlite3 ssl subprocess sys tempfile"
    " threading time urllib.request urllib3 uuid uvloop wasmtime".split()
)


def _is_impure(target: str) -> bool:
    """Whether an imported name, or a package it lies in, acts."""
    steps = target.split(".")
    return any(".".join(steps[: end + 1]) in IMPURE for end in range(len(steps)))


def _own_modules() -> list[Module]:
    return list(modules().values())


def _pure_modules() -> list[Module]:
    return [module for module in _own_modules() if module.name in classification.PURE]


def test_every_module_is_declared_pure_or_shell() -> None:
    names = {module.name for module in _own_modules() if not module.is_facade}
    declared = classification.PURE | classification.SHELL
    assert not classification.PURE & classification.SHELL
    assert sorted(names - declared) == [], "declare these in tests/architecture/classification.py"
    assert sorted(declared - names) == [], "these no longer exist"


def test_imports_point_only_to_the_left() -> None:
    order = {name: position for position, name in enumerate(PACKAGES)}
    breaches = []
    for module in _own_modules():
        for entry in imports_of(module):
            head = entry.target.partition(".")[0]
            if head in {"tests", "examples", "benchmarks", "tools"} or order.get(head, -1) > order[module.package]:
                breaches.append(f"{module.name}:{entry.line} imports {entry.target}")
    assert breaches == []


def test_pure_modules_import_nothing_that_acts() -> None:
    breaches = []
    for module in _pure_modules():
        for entry in imports_of(module):
            target = resolve(entry.target)
            foreign = target is None and _is_impure(entry.target)
            if foreign or target in classification.SHELL:
                breaches.append(f"{module.name}:{entry.line} imports {entry.target}")
    assert breaches == []


def test_pure_modules_have_no_coroutines() -> None:
    breaches = []
    for module in _pure_modules():
        declared = protocol_methods(module)
        for function in functions_of(module):
            if isinstance(function, ast.AsyncFunctionDef) and function not in declared:
                breaches.append(f"{module.name}:{function.lineno} async def {function.name}")
    assert breaches == []


def test_pure_modules_touch_no_disk_clock_or_terminal() -> None:
    breaches = [f"{module.name}:{line} {name}" for module in _pure_modules() for line, name in acts_of(module.tree)]
    assert breaches == []


ACTING = {
    "a file is opened": ("open('x')", "open"),
    "opening is handed on": ("list(map(open, names))", "open"),
    "a path is opened": ("Path('x').open('rb')", "Path('x').open"),
    "a path is read": ("folder.read_bytes()", "folder.read_bytes"),
    "a path is written": ("(folder / 'x').write_text('y')", "(folder / 'x').write_text"),
    "a folder is listed": ("sorted(folder.rglob('*'))", "folder.rglob"),
    "a path is looked for": ("any(map(Path.is_file, paths))", "Path.is_file"),
    "the home directory is asked for": ("Path.home()", "Path.home"),
    "a clock is asked": ("datetime.now(UTC)", "datetime.now"),
    "a clock is handed on": ("Field(default_factory=datetime.utcnow)", "datetime.utcnow"),
    "a key is drawn": ("AESGCM.generate_key(256)", "AESGCM.generate_key"),
    "something is printed": ("print(1)", "print"),
    "text is run": ("eval('1')", "eval"),
    "a module is imported by a call": ("__import__('os')", "__import__"),
}

RESTING = {
    "a path is put together": "Path('x') / 'y'",
    "a field is called input": "class A:\n    input: dict",
    "a field called input is read": "probe.input",
    "a field is set that is called like a method": "self.now = now",
    "an instant is parsed": "datetime.fromtimestamp(now, UTC)",
    "a text is replaced": "name.replace('a', 'b')",
}

ACTING_IMPORTS = [
    "os.environ",
    "os.path.join",
    "time",
    "io.BytesIO",
    "urllib.request",
    "urllib.request.urlopen",
    "sys.stdin",
]
RESTING_IMPORTS = ["urllib.parse.quote", "osmosis", "timeit2.time", "pathlib.Path", "zoneinfo.ZoneInfo"]


@pytest.mark.parametrize(("text", "name"), ACTING.values(), ids=ACTING.keys())
def test_acts_are_found_when(text: str, name: str) -> None:
    assert list(acts_of(ast.parse(f"\n{text}"))) == [(2, name)]


@pytest.mark.parametrize("text", RESTING.values(), ids=RESTING.keys())
def test_no_acts_are_found_when(text: str) -> None:
    assert list(acts_of(ast.parse(text))) == []


@pytest.mark.parametrize("target", ACTING_IMPORTS)
def test_imports_are_impure_when_they_act(target: str) -> None:
    assert _is_impure(target)


@pytest.mark.parametrize("target", RESTING_IMPORTS)
def test_imports_are_pure_when_they_only_compute(target: str) -> None:
    assert not _is_impure(target)


def test_modules_stay_small() -> None:
    assert [f"{module.name}: {module.lines}" for module in _own_modules() if module.lines > MODULE_MAX_LINES] == []


def test_functions_stay_small() -> None:
    breaches = []
    for module in _own_modules():
        for function in functions_of(module):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > FUNCTION_MAX_LINES:
                breaches.append(f"{module.name}.{function.name}: {lines} lines")
    assert breaches == []


def test_functions_take_few_arguments() -> None:
    breaches = []
    for module in _own_modules():
        if module.package == "cli":
            continue  # a command's options are its arguments; the sizes of everything below it hold
        for function in functions_of(module):
            given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            count = len([argument for argument in given if argument.arg not in {"self", "cls"}])
            if count > FUNCTION_MAX_ARGUMENTS:
                breaches.append(f"{module.name}.{function.name}: {count} arguments")
    assert breaches == []


def _load_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module in _own_modules():
        if module.is_facade:
            continue
        targets = {resolve(entry.target) for entry in imports_of(module) if entry.at_load}
        graph[module.name] = {target for target in targets if target and target != module.name}
    return graph


def test_no_imports_run_in_a_circle() -> None:
    graph = _load_graph()
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in trail:
            return (*trail[trail.index(name) :], name)
        if name in done:
            return None
        for target in sorted(graph.get(name, ())):
            circle = visit(target, (*trail, name))
            if circle:
                return circle
        done.add(name)
        return None

    circles = [circle for circle in (visit(name, ()) for name in sorted(graph)) if circle]
    assert circles == []


def test_every_module_says_what_it_guarantees() -> None:
    assert [module.name for module in _own_modules() if not ast.get_docstring(module.tree)] == []


def test_assert_guards_no_data() -> None:
    breaches = [
        f"{module.name}:{node.lineno}"
        for module in _own_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]
    assert breaches == []


def test_no_broad_except_swallows() -> None:
    breaches = []
    for module in _own_modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            if broad and all(isinstance(step, (ast.Pass, ast.Continue)) for step in node.body):
                breaches.append(f"{module.name}:{node.lineno}")
    assert breaches == []


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_lock_files_carry_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    blocks = text.replace("\\\n", " ").splitlines()
    pins = [line for line in blocks if line and not line.lstrip().startswith("#")]
    assert pins
    assert [line.split()[0] for line in pins if "--hash=sha256:" not in line] == []


def test_node_lock_file_carries_integrity_and_no_addresses() -> None:
    text = (ROOT / "tests/e2e/node/package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in text
    assert text.count('"integrity"') > 1


def test_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
