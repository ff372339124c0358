"""Which storage a service's configuration asks for, opened: a directory, or a bucket with the extra `s3`.

Guarantees: botocore is looked for only when a bucket is configured, and its absence says what to install; keys come by
reference only; a bucket that does not keep two writers apart is not used. Leaves what lies there to the shelves.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from bundles.client_state import boot_seconds
from bundles.errors import BundleMisuse
from bundles.s3_shelf import ObjectShelves, Say, ShelfSettings
from bundles.service_config import ObjectStorage, ServiceDocument
from bundles.service_shelf import Shelves
from bundles.service_store import DirectoryShelves


def open_shelves(document: ServiceDocument, base_dir: Path, *, read_secret: Callable[[str], str], say: Say) -> Shelves:
    """The configured storage. Blocks on the network where that is a bucket.

    Raises :class:`BundleMisuse` (``extra_missing``, and what ``read_secret`` raises) and :class:`BundleUnavailable`
    (``storage_unreachable``, ``storage_forbidden``, ``storage_bucket``, ``storage_unsupported`` …).
    """
    if document.storage is None:
        return DirectoryShelves(base_dir / document.directory, history_max_count=document.history_max_count)
    if importlib.util.find_spec("botocore") is None:
        raise BundleMisuse("extra_missing", "storage needs the extra `s3`: install tidegate[s3]")
    settings = ShelfSettings(
        prefix=document.storage.prefix,
        history_max_count=document.history_max_count,
        unconfirmed_max_seconds=document.storage.unconfirmed_max_seconds,
        boot_clock=boot_seconds,
        say=say,
    )
    shelves = _bucket(document.storage, settings, read_secret)
    shelves.check_conditions()
    return shelves


def _bucket(storage: ObjectStorage, settings: ShelfSettings, read_secret: Callable[[str], str]) -> ObjectShelves:
    from bundles.s3_client import S3Keys, S3Objects

    token = storage.session_token
    keys = S3Keys(
        read_secret(storage.access_key),
        read_secret(storage.secret_key),
        read_secret(token) if token is not None else None,
    )
    return ObjectShelves(S3Objects(storage, keys), settings)
