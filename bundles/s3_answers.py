"""What an answer of S3, or of whatever answers in its place, means, and what its operator does about it.

Guarantees: every failure gets one of a few stable codes and words that name the mend; absence is only believed when S3
itself says it; text from outside is cut and printable. Leaves asking to ``bundles.s3_client``.
**Source**: Amazon S3 API reference, error responses and conditional writes.
"""

from __future__ import annotations

from typing import Final

from bundles.errors import BundleRefused, BundleUnavailable

SHOWN_MAX_CHARS: Final = 200
ABSENT_CODE: Final = "NoSuchKey"
_LOST: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_ELSEWHERE: Final = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_KEYS: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})


class StorageFault(BundleUnavailable):
    """A bucket did not do what it was asked.

    ``undone`` says that a write certainly did not happen; otherwise nobody knows.
    """

    def __init__(self, code: str, detail: str, *, undone: bool) -> None:
        super().__init__(code, detail)
        self.undone = undone


def fault_of(status: int, code: str, message: str, place: str) -> StorageFault | BundleRefused:
    """The error for an answer with ``status`` and S3's own ``code`` and ``message`` about ``place``."""
    if code in _LOST or status == 412:
        return BundleRefused("precondition_failed", "another service published here meanwhile")
    said = shown(f"{status} {code} {message}")
    if code == "NoSuchBucket":
        return StorageFault("storage_bucket", f"{place}: there is no such bucket ({said})", undone=True)
    if code in _ELSEWHERE or status in (301, 307):
        detail = f"{place}: the bucket is in another region; mend storage.region and storage.endpoint ({said})"
        return StorageFault("storage_bucket", detail, undone=True)
    if code in _KEYS or code == "RequestTimeTooSkewed" or status in (401, 403):
        return StorageFault("storage_forbidden", f"{place}: {_mend(code)} ({said})", undone=True)
    if status == 501 or code == "NotImplemented":
        return no_conditions(place, said)
    if status >= 500:
        return StorageFault("storage_failed", f"{place}: the storage fails; it is asked again ({said})", undone=False)
    if status == 404 and code == ABSENT_CODE:
        return StorageFault("storage_damaged", f"{place} is gone ({said})", undone=True)
    if status in (404, 405) or code in ("", str(status)):
        return not_s3(place, f"it says {said}")
    return StorageFault("storage_failed", f"{place}: the storage refuses the request ({said})", undone=True)


def elsewhere(place: str) -> StorageFault:
    """The error for a bucket that is said to be reached by another host."""
    detail = f"{place}: the bucket is said to be elsewhere; mend storage.region and storage.endpoint"
    return StorageFault("storage_bucket", detail, undone=True)


def no_conditions(place: str, why: str) -> StorageFault:
    """The error for a storage that would let two writers overwrite each other."""
    detail = (
        f"{place}: no conditional writes here ({why}); use a storage that honours If-Match and If-None-Match on PUT"
    )
    return StorageFault("storage_unsupported", detail, undone=True)


def not_s3(place: str, what: str) -> StorageFault:
    """The error for an answer that S3 would not give."""
    detail = f"{place}: what came is no answer of S3: {what}; look at storage.endpoint and at proxies in between"
    return StorageFault("storage_answer", detail, undone=False)


def shown(text: str) -> str:
    """Text from outside, cut, without control characters."""
    kept = " ".join(text.split())[:SHOWN_MAX_CHARS]
    return "".join(character if character.isprintable() else "?" for character in kept)


def _mend(code: str) -> str:
    if code == "RequestTimeTooSkewed":
        return "this machine's clock is wrong; set it"
    if code in _KEYS:
        return "the keys are not accepted; look at storage.access_key, secret_key and session_token"
    return "access is denied; the keys need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket here"
