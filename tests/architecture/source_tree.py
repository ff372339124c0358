"""Reads the project's own source as syntax trees.

Guarantees that nothing is imported or run: every answer comes from `ast` alone. What counts as a breach is left to the
tests beside this module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ACTING_BUILTINS = frozenset("__import__ breakpoint compile eval exec input open print".split())
# What a path does beyond being written, what asks a clock and what draws a key. `resolve`, `replace` and `absolute` are
# missing because other things carry these names too.
ACTING_ATTRIBUTES = frozenset(
    "chmod cwd exists expanduser generate generate_key generate_private_key glob hardlink_to home is_dir is_file"
    " is_mount is_symlink iterdir lstat mkdir now open read_bytes read_text readlink rename rglob rmdir samefile"
    " stat symlink_to today touch unlink utcnow write_bytes write_text".split()
)
PACKAGES = ("rego", "bundles", "pdp", "gateway", "agent", "cli")


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its dotted name, its place and its tree."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def package(self) -> str:
        """The top-level package it lies in."""
        return self.name.partition(".")[0]

    @property
    def is_facade(self) -> bool:
        """Whether it is a package's `__init__`."""
        return self.path.name == "__init__.py"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported dotted name (`from a import b` gives `a.b`), and whether importing the module runs it."""

    target: str
    line: int
    at_load: bool


@cache
def modules() -> Mapping[str, Module]:
    """Every module of the shipped packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            found[name] = Module(name, path, ast.parse(text, str(path)), len(text.splitlines()))
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _walk(node: ast.AST, at_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = at_load and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        inside = inside and not _is_type_checking(child)
        yield child, inside
        yield from _walk(child, inside)


def imports_of(module: Module) -> tuple[Import, ...]:
    """Every import statement of a module, those in functions and under TYPE_CHECKING too."""
    return tuple(_imports(module))


def _imports(module: Module) -> Iterator[Import]:
    base = module.name.split(".") if module.is_facade else module.name.split(".")[:-1]
    for node, at_load in _walk(module.tree, True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_load)
        elif isinstance(node, ast.ImportFrom):
            up = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{source}.{alias.name}", node.lineno, at_load)


def resolve(target: str) -> str | None:
    """The module of ours that defines an imported dotted name, seen through re-exports; None for foreign names."""
    known = modules()
    if target in known:
        return target
    owner, _, name = target.rpartition(".")
    if owner not in known:
        return None if not owner else resolve(owner)
    if known[owner].is_facade:
        for entry in imports_of(known[owner]):
            if entry.target.rpartition(".")[2] == name and entry.target != target:
                return resolve(entry.target)
    return owner


def functions_of(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module, nested ones too."""
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def protocol_methods(module: Module) -> frozenset[ast.AST]:
    """The methods that only declare a port: those in the body of a Protocol class."""
    methods: set[ast.AST] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
            methods.update(node.body)
    return frozenset(methods)


def acts_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of whatever acts without an import that says so: a builtin or a method, called or only handed on."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Name, ast.Attribute)) or not isinstance(node.ctx, ast.Load):
            continue
        if isinstance(node, ast.Name) and node.id in ACTING_BUILTINS:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and node.attr in ACTING_ATTRIBUTES:
            yield node.lineno, ast.unparse(node)
