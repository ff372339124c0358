"""One gate at a time owns a store's file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.store.owner_driver import LOCK_SUFFIX, StoreOwner
from gateway.store.port import StoreUnavailable
from tests.e2e.harness import ROOT

HOLD = """
import sys
from pathlib import Path
from gateway.store.owner_driver import StoreOwner
owner = StoreOwner(Path(sys.argv[1]))
print("owned", flush=True)
sys.stdin.read()
"""


def _refused(path: Path) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        StoreOwner(path)
    return caught.value.code


def test_store_is_in_use_until_its_owner_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "tidegate.db"
    owner = StoreOwner(path)
    assert _refused(path) == "store_in_use"
    owner.release()
    owner.release()
    StoreOwner(path).release()
    assert (tmp_path / f"tidegate.db{LOCK_SUFFIX}").stat().st_mode & 0o777 == 0o600


def test_store_is_free_again_when_its_owner_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "tidegate.db"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"owned\n"
        assert _refused(path) == "store_in_use"
        holder.kill()
        holder.wait()
    StoreOwner(path).release()


def test_other_stores_in_the_directory_are_free(tmp_path: Path) -> None:
    owner = StoreOwner(tmp_path / "a.db")
    StoreOwner(tmp_path / "b.db").release()
    owner.release()


def test_store_cannot_be_owned_when_the_lock_is_a_link(tmp_path: Path) -> None:
    (tmp_path / f"a.db{LOCK_SUFFIX}").symlink_to(tmp_path / "elsewhere")
    assert _refused(tmp_path / "a.db") == "store_missing"


def test_store_cannot_be_owned_by_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "store.db")
    (tmp_path / "loose.db").symlink_to(tmp_path / "absent.db")
    assert _refused(tmp_path / "link.db") == "store_linked"
    assert _refused(tmp_path / "loose.db") == "store_linked"
    StoreOwner(tmp_path / "store.db").release()


def test_store_is_in_use_by_every_way_through_the_directories_that_hold_it(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "volume")
    owner = StoreOwner(tmp_path / "volume" / "a.db")
    assert _refused(tmp_path / "state" / "a.db") == "store_in_use"
    owner.release()


def test_store_cannot_be_owned_when_its_directory_is_missing(tmp_path: Path) -> None:
    assert _refused(tmp_path / "none" / "a.db") == "store_missing"
