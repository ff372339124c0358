"""The quick call is used only where it is proved."""

from __future__ import annotations

from typing import Any

import pytest
import wasmtime

from bundles.trusted_set import TrustedBundle
from pdp.documents import encode_input
from pdp.errors import EngineFailed
from pdp.wasm import calls
from pdp.wasm.host import WasmEngine
from tests.pdp.parts import QUESTION


@pytest.fixture
def fuelled() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.consume_fuel = True
    return wasmtime.Engine(config)


def test_unchecked_calls_work_when_the_layout_is_the_known_one(fuelled: wasmtime.Engine) -> None:
    assert calls.unchecked_calls_work(fuelled)


class _Swapped(calls.UncheckedCall):
    """A layout in which the arguments arrive in another order."""

    def __call__(self, *arguments: int) -> int:
        return super().__call__(*reversed(arguments))


class _Deaf(calls.UncheckedCall):
    """A layout in which a trap goes unnoticed."""

    def __call__(self, *arguments: int) -> int:
        try:
            return super().__call__(*arguments)
        except EngineFailed:
            return 0


class _Gone(calls.UncheckedCall):
    """A layout in which a name is missing."""

    def __init__(self, store: wasmtime.Store, function: wasmtime.Func, count: int) -> None:
        raise AttributeError("wasmtime_val_raw_t")


@pytest.mark.parametrize("layout", [_Swapped, _Deaf, _Gone])
def test_engine_falls_back_to_the_typed_call_when_the_self_test_fails(
    layout: type[calls.UncheckedCall], rules: TrustedBundle
) -> None:
    engine = WasmEngine(self_test=lambda made: calls.unchecked_calls_work(made, layout))
    assert not engine.unchecked
    policy = engine.prepare(rules)
    assert policy.decide(encode_input(QUESTION))
    policy.close()


def _mute(store: wasmtime.Store, kind: wasmtime.FuncType, answer: calls.ModuleCall) -> tuple[wasmtime.Func, object]:
    """A layout in which the host's answer does not arrive."""
    return calls.unchecked_callback(store, kind, lambda *words: answer(*words) * 0)


def _mixed(store: wasmtime.Store, kind: wasmtime.FuncType, answer: calls.ModuleCall) -> tuple[wasmtime.Func, object]:
    """A layout in which the host is told the words in another order."""
    return calls.unchecked_callback(store, kind, lambda *words: answer(*reversed(words)))


def _unstoppable(
    store: wasmtime.Store, kind: wasmtime.FuncType, answer: calls.ModuleCall
) -> tuple[wasmtime.Func, object]:
    """A layout in which the host cannot stop the module."""

    def told(*words: int) -> int:
        try:
            return answer(*words)
        except ValueError:
            return 1

    return calls.unchecked_callback(store, kind, told)


@pytest.mark.parametrize("layout", [_mute, _mixed, _unstoppable])
def test_unchecked_calls_do_not_work_when_a_callback_goes_wrong(fuelled: wasmtime.Engine, layout: Any) -> None:
    assert not calls.unchecked_calls_work(fuelled, callback=layout)
