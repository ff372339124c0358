"""What an error answer means: its code, whether a write certainly did not happen, and the mend in words."""

from __future__ import annotations

import pytest

from bundles.errors import BundleRefused
from bundles.s3_answers import SHOWN_MAX_CHARS, StorageFault, fault_of, no_conditions, not_s3, shown

LOST = {
    "the condition failed": (412, "PreconditionFailed"),
    "the condition failed, as a bare status": (412, "412"),
    "another write was under way": (409, "ConditionalRequestConflict"),
}


@pytest.mark.parametrize("case", LOST)
def test_writer_is_held_back_when(case: str) -> None:
    status, code = LOST[case]
    fault = fault_of(status, code, "", "there")
    assert isinstance(fault, BundleRefused) and fault.code == "precondition_failed"


ANSWERS = {
    "the bucket is unknown": (404, "NoSuchBucket", "storage_bucket", True, "no such bucket"),
    "the bucket is elsewhere": (301, "PermanentRedirect", "storage_bucket", True, "storage.region"),
    "the bucket is elsewhere, without words": (307, "307", "storage_bucket", True, "storage.region"),
    "the region is wrong": (400, "AuthorizationHeaderMalformed", "storage_bucket", True, "storage.region"),
    "the key is unknown": (403, "InvalidAccessKeyId", "storage_forbidden", True, "storage.access_key"),
    "the signature is wrong": (403, "SignatureDoesNotMatch", "storage_forbidden", True, "storage.access_key"),
    "the session ended": (400, "ExpiredToken", "storage_forbidden", True, "session_token"),
    "the clock is wrong": (403, "RequestTimeTooSkewed", "storage_forbidden", True, "clock"),
    "access is denied": (403, "AccessDenied", "storage_forbidden", True, "s3:ListBucket"),
    "access is denied without words": (403, "403", "storage_forbidden", True, "s3:PutObject"),
    "somebody wants a log-in": (401, "401", "storage_forbidden", True, "denied"),
    "conditions are unknown": (501, "NotImplemented", "storage_unsupported", True, "If-Match"),
    "conditions are unknown, as a bare status": (501, "501", "storage_unsupported", True, "If-Match"),
    "conditions are unknown, as a bad request": (400, "NotImplemented", "storage_unsupported", True, "If-Match"),
    "the storage is overloaded": (503, "SlowDown", "storage_failed", False, "asked again"),
    "the storage fails": (500, "InternalError", "storage_failed", False, "asked again"),
    "a proxy fails": (502, "502", "storage_failed", False, "asked again"),
    "the object is gone": (404, "NoSuchKey", "storage_damaged", True, "gone"),
    "something else knows no such page": (404, "404", "storage_answer", False, "proxies"),
    "something else knows no such method": (405, "MethodNotAllowed", "storage_answer", False, "proxies"),
    "something else wants another page": (302, "302", "storage_answer", False, "proxies"),
    "something else finds it bad": (400, "400", "storage_answer", False, "proxies"),
    "something else does not say why": (400, "", "storage_answer", False, "proxies"),
    "the request is refused": (400, "InvalidRequest", "storage_failed", True, "refuses"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_fault_says_what_to_mend_when(case: str) -> None:
    status, said, code, undone, word = ANSWERS[case]
    fault = fault_of(status, said, "", "https://s3.example, bucket b, key")
    assert isinstance(fault, StorageFault)
    assert (fault.code, fault.undone) == (code, undone)
    assert word in fault.detail and "https://s3.example" in fault.detail and said in fault.detail


def test_text_from_outside_is_cut_and_printable_when_shown() -> None:
    assert shown("a\x1b[31m\r\n b\u202ec\x00") == "a?[31m b?c?"
    assert len(shown("x" * 10_000)) == SHOWN_MAX_CHARS
    assert len(fault_of(400, "X" * 10_000, "y" * 10_000, "there").detail) < 2 * SHOWN_MAX_CHARS


def test_faults_without_an_error_document_say_what_came() -> None:
    assert (no_conditions("there", "why").code, not_s3("there", "what").code) == (
        "storage_unsupported",
        "storage_answer",
    )
