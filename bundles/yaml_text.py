"""YAML as authors write manifests, read as JSON and nothing more.

Guarantees: only JSON's types come out, keys are unique strings, and there are no anchors, tags or aliases, so a small
file cannot unfold into a large one or into an object. Leaves to its callers: what the values mean.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from bundles.canonical import JsonValue, StrictJsonError, canonical_json, parse_strict
from bundles.errors import BundleRefused

YAML_MAX_BYTES: Final = 1 << 20


class _Loader(yaml.SafeLoader):
    """The safe loader, which here also refuses what it would silently pass over."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("anchors and aliases are not allowed")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: the key {key!r} is not a string; quote it")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(raw: bytes) -> JsonValue:
    """Parse one YAML document into JSON values; raises :class:`BundleRefused` ``yaml_invalid``."""
    if len(raw) > YAML_MAX_BYTES:
        raise BundleRefused("yaml_invalid", f"more than {YAML_MAX_BYTES} bytes")
    try:
        value = yaml.load(raw.decode("utf-8"), Loader=_Loader)  # noqa: S506 - the loader above is a SafeLoader
        return parse_strict(canonical_json(value), max_bytes=4 * YAML_MAX_BYTES)
    except StrictJsonError as refused:
        raise BundleRefused("yaml_invalid", f"{refused}; dates and the like are written in quotes") from refused
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as refused:
        raise BundleRefused("yaml_invalid", " ".join(str(refused).split())) from refused
