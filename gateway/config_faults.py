"""What is wrong with a configuration, in words: the place of each key, and which key was meant.

Guarantees: no value of the configuration is repeated, since a secret may stand there by mistake. Leaves finding what is wrong to the
models.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_VALUE_ERROR = "Value error, "


def faults_in_words(error: ValidationError, model: type[BaseModel]) -> str:
    """Every fault that a model found in a document, each with its place."""
    said: list[str] = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        place, words = _place(fault["loc"]), _words(fault["type"], fault["msg"], fault["loc"], model)
        said.append(f"{place}: {words}" if place else words)
    return "; ".join(said)


def _place(loc: tuple[int | str, ...]) -> str:
    """The path to a key as it is written; what pydantic adds for the branches of a choice is left out."""
    return ".".join(str(part) for part in loc if isinstance(part, int) or not _is_branch(part))


def _is_branch(part: str) -> bool:
    return part.startswith("literal[") or part[:1].isupper()


def _words(kind: str, message: str, loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    if kind == "missing":
        return "is missing"
    if kind != "extra_forbidden":
        return message.removeprefix(_VALUE_ERROR)
    known = sorted({name for section in _sections(model, loc[:-1]) for name in section.model_fields})
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    if close:
        return f"unknown key; did you mean {close[0]}?"
    return f"unknown key; known here: {', '.join(known)}" if known else "unknown key"


def _sections(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that may stand at a place."""
    sections = [model]
    for part in loc:
        fields = [section.model_fields[part] for section in sections if part in section.model_fields]
        if fields:
            sections = [found for field in fields for found in _models(field.annotation)]
    return sections


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
