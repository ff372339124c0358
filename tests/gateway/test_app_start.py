"""Starting a gate in this process, with the blocking-call detector on: nothing of a start may hold the loop up."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from gateway.app import start_gate
from gateway.config import GatewayConfig, load_config
from gateway.operations.log import LineLog
from gateway.store.port import StoreUnavailable


def _config(starter_directory: Path, directory: Path) -> GatewayConfig:
    shutil.copytree(starter_directory, directory)
    return load_config((directory / "tidegate.yaml").read_text(encoding="utf-8"), directory, {})


async def test_gate_starts_without_blocking_the_loop_when_nothing_is_cached(
    starter_directory: Path, tmp_path: Path
) -> None:
    config = _config(starter_directory, tmp_path / "gate")
    shutil.rmtree(tmp_path / "gate" / "state", ignore_errors=True)
    gate = await start_gate(config, log=LineLog(io.BytesIO()))
    await gate.close()
    assert (tmp_path / "gate" / "state" / "modules").is_dir()


async def test_gate_does_not_start_when_another_one_owns_its_store(starter_directory: Path, tmp_path: Path) -> None:
    config = _config(starter_directory, tmp_path / "gate")
    first = await start_gate(config, log=LineLog(io.BytesIO()))
    with pytest.raises(StoreUnavailable) as caught:
        await start_gate(config, log=LineLog(io.BytesIO()))
    assert caught.value.code == "store_in_use"
    await first.close()
    again = await start_gate(config, log=LineLog(io.BytesIO()))
    await again.close()


async def test_store_is_free_again_when_a_start_has_failed(starter_directory: Path, tmp_path: Path) -> None:
    config = _config(starter_directory, tmp_path / "gate")
    bundle = tmp_path / "gate" / "bundle.tar.gz"
    sound = bundle.read_bytes()
    bundle.write_bytes(b"none")
    with pytest.raises(Exception, match="bundle_archive_invalid"):
        await start_gate(config, log=LineLog(io.BytesIO()))
    bundle.write_bytes(sound)
    gate = await start_gate(config, log=LineLog(io.BytesIO()))
    await gate.close()
