"""The `tidegate` command: one module per noun, nothing else.

Only the noun that is asked for is imported, so that small commands do not pay for the engine and the server; what a
noun needs for one of its verbs alone is imported by that verb.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Annotated, Final

import typer

_COMMANDS: Final = ("init", "token", "call", "doctor")
_GROUPS: Final = ("gateway", "bundle", "policy", "approvals", "ledger", "switch")
_VERSION: Final = "--version"


def command_line(arguments: Sequence[str]) -> typer.Typer:
    """The application with the noun that `arguments` begin with, or with every noun when they begin with none."""
    app = typer.Typer(
        name="tidegate",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="The gate between software that acts and everything it acts on.",
    )
    app.callback()(_root)
    wanted = arguments[0] if arguments else ""
    every = (*_COMMANDS, *_GROUPS)
    nouns = (wanted,) if wanted in every else () if wanted == _VERSION else every
    for noun in nouns:
        module = _loaded(f"cli.{noun}")
        if noun in _GROUPS:
            app.add_typer(module.app, name=noun)
        else:
            app.command(noun)(getattr(module, noun))
    return app


def _loaded(name: str) -> ModuleType:
    """The module, imported while the cyclic collector rests.

    What importing makes stays to the end. Looking through it again and again while it grows, later with everything that
    a gate does, and once more at the exit, costs a third of the time of a short command.
    """
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tidegate {version('tidegate')}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool, typer.Option(_VERSION, callback=_say_version, is_eager=True, help="Say which version this is, and end.")
    ] = False,
) -> None:
    """The gate between software that acts and everything it acts on."""


def main() -> None:
    """Run the command line; exit 2 on wrong usage."""
    command_line(sys.argv[1:])(prog_name="tidegate")


if __name__ == "__main__":
    main()
