"""The `tidegate` command: one module per noun, nothing else."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import typer

from cli import approvals, call, doctor, gateway, init, switch, token

app = typer.Typer(
    name="tidegate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The gate between software that acts and everything it acts on.",
)
app.command("init")(init.init)
app.command("token")(token.token)
app.command("call")(call.call)
app.command("doctor")(doctor.doctor)
app.add_typer(gateway.app, name="gateway")
app.add_typer(approvals.app, name="approvals")
app.add_typer(switch.app, name="switch")
for _noun in ("bundle", "ledger", "policy"):
    if importlib.util.find_spec(f"cli.{_noun}") is not None:
        app.add_typer(importlib.import_module(f"cli.{_noun}").app, name=_noun)


def main() -> None:
    """Run the command line; exit 2 on wrong usage."""
    app()


if __name__ == "__main__":
    sys.exit(main())
