"""`docs/connectors.md`: every key of a manifest with its default, and a connector made and called as the page has it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import annotated_types
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bundles.manifest import ConnectorManifest
from gateway.connectors.classify import DEFAULT_PARAMETER_PATTERN
from gateway.connectors.credentials import _FIELDS, _OPTIONAL
from tests.e2e.calling import until
from tests.e2e.harness import ROOT, child_environment, free_port
from tests.e2e.test_readme import Terminal
from tests.integration.pages import Block, blocks, names, page, rows, section

PAGE = page("connectors.md")
ACTIONS = "actions[]"
EXAMPLE = blocks(section(PAGE, "## A new connector"))
GATE_ADDRESS, SERVICE_PORT = "127.0.0.1:8080", "9600"
_FILE = re.compile(r"`([\w./-]+\.(?:yaml|json|rego|py))`")


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone, in a tuple or perhaps."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _inner(argument))), None)


def _keys(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that a manifest may have, as the page writes it; one that holds others is named where it is a list."""
    for name, field in model.model_fields.items():
        called, inner = before + (field.alias or name), _inner(field.annotation)
        listed = "tuple" in str(field.annotation)
        if inner is None or listed:
            yield called, field
        if inner is not None:
            yield from _keys(inner, ACTIONS + "." if listed else f"{called}.")


def _told() -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    whole = section(PAGE, "## Keys")
    for prefix, text in (("", whole.partition("###")[0]), (ACTIONS + ".", whole.partition("###")[2])):
        for cells in rows(text):
            for name in names(cells[0]):
                assert prefix + name not in told, name
                told[prefix + name] = cells
    return told


def _default(field: FieldInfo) -> str:
    """A default as the page writes it."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple) and value:
        return f"`[{', '.join(value)}]`"
    return f"`{value}`" if value or value == 0 else "empty"


def test_page_names_each_key_of_a_manifest_once_and_no_other() -> None:
    assert sorted(_told()) == sorted(name for name, _ in _keys(ConnectorManifest))


def test_page_has_the_defaults_as_they_are() -> None:
    expected = {name: _default(field) for name, field in _keys(ConnectorManifest)}
    assert {name: cells[2] for name, cells in _told().items()} == expected


def test_page_has_the_limits_of_whole_numbers_as_they_are() -> None:
    told = _told()
    for name, field in _keys(ConnectorManifest):
        bounds: list[object] = [bound.ge for bound in field.metadata if isinstance(bound, annotated_types.Ge)]
        bounds += [bound.le for bound in field.metadata if isinstance(bound, annotated_types.Le)]
        if len(bounds) == 2 and bounds[1] != 5 << 30:  # the largest body is told in GiB
            assert f"{bounds[0]} to {bounds[1]}" in told[name][3], name


def test_page_has_the_default_pattern_of_a_path_parameter() -> None:
    assert DEFAULT_PARAMETER_PATTERN in names(_told()["actions[].arguments.parameters"][3])


def test_page_has_the_fields_of_each_credential() -> None:
    told = {cells[0].strip("`"): tuple(names(cells[1])) for cells in rows(section(PAGE, "## Auth"))}
    assert told == {kind: (*fields, *_OPTIONAL.get(kind, ())) for kind, fields in _FIELDS.items()}


def _write(directory: Path, block: Block, service_port: int) -> None:
    """Write the file that the prose before a block names last; what is there already stays before it."""
    path = directory / _FILE.findall(block.before)[-1]
    with path.open("a", encoding="utf-8") as file:
        file.write(block.text.replace(SERVICE_PORT, str(service_port)))


def _environment(directory: Path, gate_port: int) -> dict[str, str]:
    for name in (".venv", "examples"):
        (directory / name).symlink_to(ROOT / name)
    environment = child_environment()
    del environment["PYTHONPATH"]
    listen = {"GATE": f"127.0.0.1:{gate_port}", "METRICS": f"127.0.0.1:{free_port()}"}
    environment |= {f"TIDEGATE_CONFIG__LISTEN__{name}": address for name, address in listen.items()}
    return environment | {"TIDEGATE_GATE": f"http://127.0.0.1:{gate_port}"}


def _answers(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return None


@pytest.mark.timeout(240)
def test_a_connector_is_made_and_called_when_the_page_is_followed(tmp_path: Path, opa_path: Path) -> None:
    del opa_path  # the build finds it in the checkout
    gate_port, service_port = free_port(), free_port()
    environment = _environment(tmp_path, gate_port)
    *making, service, gate, calls = [block for block in EXAMPLE if block.language == "sh"]
    shown = ""
    with (
        Terminal.open(tmp_path, environment, "first") as first,
        Terminal.open(tmp_path, environment, "second") as second,
        Terminal.open(tmp_path, environment, "third") as third,
    ):
        for block in EXAMPLE:
            if block.language != "sh":
                _write(tmp_path, block, service_port)
            elif block in making:
                shown += "".join(first.run(command) for command in block.commands())
        assert shown.rstrip().endswith("instance parcels: 2 actions of parcels")
        for terminal, block in ((second, service), (first, gate)):
            *setting, started = block.commands()
            for command in setting:
                terminal.run(command)
            terminal.start(started)
        until("the service answers", lambda: _answers(f"http://127.0.0.1:{service_port}/api/parcels/P000001"))
        until("the gate answers", lambda: _answers(f"http://127.0.0.1:{gate_port}/health/ready"))
        typed = [command.replace(GATE_ADDRESS, f"127.0.0.1:{gate_port}") for command in calls.commands()]
        *_, asked, fetched, redirected, abroad = [third.run(command) for command in typed]
    assert '"state": "on its way"' in asked
    assert '"state": "on its way"' in fetched
    assert '"goes_to": "NL"' in redirected
    assert "waiting for approval" in abroad
