"""How every command speaks: one JSON object with ``--json``, words otherwise, exit codes of ``docs/calling.md``.

Guarantees: exit 0 done, 1 refused or check failed, 2 usage, 3 unavailable; errors go to standard error; control
characters in anything shown to a person are escaped (security rule 17).
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3

JSON_OPTION = typer.Option(False, "--json", help="Print one JSON object and nothing else.")


def shown(text: object) -> str:
    """Text with control, format and tag characters written as ``\\u{…}``, and console markup disarmed."""
    from rich.markup import escape

    plain = "".join(
        f"\\u{{{ord(character):x}}}" if unicodedata.category(character) in _HIDDEN else character
        for character in str(text)
    )
    return escape(plain)


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def console() -> Console:
    """The terminal; width follows it, no colour in a pipe."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def emit(as_json: bool, document: Any, words: Callable[[Console], None]) -> None:
    """Print ``document`` as JSON, or let ``words`` say it to a person."""
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        words(console())


def fail(code: str, detail: str, *, status: int = EXIT_REFUSED, as_json: bool = False) -> NoReturn:
    """End with a stable code and what is wrong: a sentence, or the lines of a compiler, which stay lines."""
    if as_json:
        sys.stdout.write(json.dumps({"error": {"code": code, "detail": detail}}, ensure_ascii=False) + "\n")
    else:
        from rich.console import Console

        errors = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        lines = "\n  ".join(shown(line.expandtabs(2)) for line in detail.splitlines())
        errors.print(f"[red]{shown(code)}[/red]: {lines}")
    raise typer.Exit(status)
