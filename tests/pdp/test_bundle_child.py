"""What the process that checks large bundles answers, without and with a process."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest

from bundles.errors import BundleMisuse, BundleRefused
from bundles.trusted_set import TrustedBundle
from pdp.bundle_child import EXIT_UNASKED, MEMORY_MAX_BYTES, PROCESSOR_MAX_SECONDS, answered
from pdp.bundle_frames import FrameMalformed, Question, question_frame
from pdp.bundle_verifier import COMMAND
from pdp.wasm.data import encode_data
from tests.bundles.parts import good_bundle
from tests.e2e.harness import child_environment
from tests.pdp import large
from tests.pdp.test_bundle_frames import answer


def asked(question: Question, **changes: Any) -> TrustedBundle:
    """The bundle that the child's answer holds."""
    pieces = answered(io.BytesIO(b"".join(question_frame(question))), **changes)
    return answer(pieces, question, large.verified_here(question).digest if not changes else "")


def test_answer_is_what_is_verified_here_when_its_texts_are_read() -> None:
    question = large.question()
    here, there = large.verified_here(question), asked(question)
    assert there.texts.keys() == {"owners"}
    assert there.texts["owners"] == encode_data({"owners": here.data["owners"]})[len(b'{"owners":') : -1]
    assert {**there.data, "owners": large.OWNERS} == here.data
    for name in ("revision", "digest", "sequence", "keyids", "manifest", "rego", "wasm", "probes", "entrypoints"):
        assert getattr(there, name) == getattr(here, name)


def test_answer_has_no_texts_when_the_gate_reads_all_data() -> None:
    there = asked(large.question(good_bundle()))
    assert (set(there.data), there.texts) == ({"chains"}, {})


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (large.question(b"no archive"), "bundle_archive_invalid"),
        (large.question(large.archive(sequence=2)), "bundle_rollback"),
        (large.question(epoch=1), "bundle_epoch_mismatch"),
        (large.question(threshold=2), "bundle_threshold"),
        (large.question(keys=()), "bundle_trust_empty"),
    ],
    ids=["bytes are no archive", "an older bundle", "another epoch", "no co-signatures", "nobody is trusted"],
)
def test_answer_is_a_refusal_when(question: Question, code: str) -> None:
    pieces = answered(io.BytesIO(b"".join(question_frame(question))))
    with pytest.raises(BundleRefused) as refused:
        answer(pieces, question)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("failure", "code"),
    [(MemoryError(), "bundle_too_large"), (BundleMisuse("odd", "by the test"), "odd")],
    ids=["there is not enough memory", "its trust is odd"],
)
def test_answer_is_a_refusal_when_checking_ends_so(failure: Exception, code: str) -> None:
    def verify(*_: Any, **__: Any) -> TrustedBundle:
        raise failure

    with pytest.raises(BundleRefused) as refused:
        asked(large.question(), verify=verify)
    assert refused.value.code == code


@pytest.mark.parametrize("cut", [0, 10, 30, -1], ids=["at once", "in the prefix", "in the document", "in the archive"])
def test_no_answer_is_given_when_the_question_ends(cut: int) -> None:
    raw = b"".join(question_frame(large.question()))
    with pytest.raises(FrameMalformed):
        answered(io.BytesIO(raw[:cut]))


def test_process_answers_when_it_is_asked() -> None:
    question = large.question()
    done = run(COMMAND, b"".join(question_frame(question)))
    assert (done.returncode, done.stderr) == (0, b"")
    assert answer((done.stdout,), question, large.verified_here(question).digest).texts.keys() == {"owners"}


def test_process_says_nothing_when_it_is_not_asked() -> None:
    done = run(COMMAND, b"what is in force?")
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_UNASKED, b"", b"")


def test_process_is_bounded_and_gives_way_when_it_begins() -> None:
    text = (
        "import os, resource; from pdp.bundle_child import NICENESS, give_way; before = os.nice(0); give_way()\n"
        "print(min(before + NICENESS, 19) - os.nice(0), *(resource.getrlimit(limit)[0] for limit in"
        " (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE)))"
    )
    done = run((sys.executable, "-P", "-c", text), b"")
    assert done.stdout.split() == [b"%d" % number for number in (0, MEMORY_MAX_BYTES, PROCESSOR_MAX_SECONDS, 0)]


def test_process_refuses_the_bundle_when_its_memory_is_too_small() -> None:
    text = (
        "import resource, sys, orjson; from pdp import bundle_child as child\n"
        "def hungry(*_, **__): return bytearray(child.MEMORY_MAX_BYTES)\n"
        "child.give_way()\n"
        "sys.stdout.buffer.write(b''.join(child.answered(sys.stdin.buffer, hungry)))"
    )
    question = large.question()
    done = run((sys.executable, "-P", "-c", text), b"".join(question_frame(question)))
    with pytest.raises(BundleRefused) as refused:
        answer((done.stdout,), question)
    assert refused.value.code == "bundle_too_large"


def run(command: tuple[str, ...], given: bytes) -> subprocess.CompletedProcess[bytes]:
    """One child from beginning to end."""
    return subprocess.run(command, input=given, capture_output=True, env=child_environment(), timeout=60, check=False)
