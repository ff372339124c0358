"""Upload tickets: once, soon, for one."""

from __future__ import annotations

import itertools
import secrets
from typing import Any

import pytest

from gateway.connectors.tickets import LIFETIME_SECONDS, TICKET_BYTES, TicketBook, upload_segments
from gateway.errors import Refusal
from tests.gateway.connectors.parts import NOW, refused, subject


def _book(**limits: int) -> TicketBook:
    return TicketBook(secrets.token_bytes, **limits)


def _issue(book: TicketBook, now: float = NOW, **changes: Any) -> str:
    values: dict[str, Any] = {
        "instance": "files",
        "actions": frozenset({"files.send"}),
        "path": "/u/1",
        "call": "c1",
        "now": now,
    }
    who = changes.pop("subject", subject())
    return book.issue(who, **(values | changes))


def _redeem(book: TicketBook, ticket: str, **changes: Any) -> Any:
    values: dict[str, Any] = {"instance": "files", "action": "files.send", "path": "/u/1", "now": NOW}
    return book.redeem(ticket, **(values | changes))


def test_ticket_gives_its_claim_when_it_is_redeemed() -> None:
    book = _book()
    claim = _redeem(book, _issue(book), now=NOW + LIFETIME_SECONDS - 0.001)
    assert (claim.subject, claim.issued_by_call, claim.instance) == (subject(), "c1", "files")
    assert len(book) == 0


def test_ticket_holds_256_random_bits() -> None:
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return b"\xff" * count

    ticket = _issue(TicketBook(source))
    assert asked == [TICKET_BYTES] == [32]
    assert len(ticket) == 43


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"instance": "other"}, id="another instance"),
        pytest.param({"action": "files.delete"}, id="another action"),
        pytest.param({"path": "/u/2"}, id="another path"),
        pytest.param({"now": NOW + LIFETIME_SECONDS}, id="ten minutes later"),
    ],
)
def test_ticket_is_refused_and_used_up_when_it_is_shown_elsewhere(changes: dict[str, Any]) -> None:
    book = _book()
    ticket = _issue(book)
    assert refused(lambda: _redeem(book, ticket, **changes)).code == "identity_invalid"
    assert refused(lambda: _redeem(book, ticket)).code == "identity_invalid"


def test_ticket_is_refused_the_second_time() -> None:
    book = _book()
    ticket = _issue(book)
    _redeem(book, ticket)
    assert refused(lambda: _redeem(book, ticket)).code == "identity_invalid"


@pytest.mark.parametrize("ticket", ["", "x", "A" * 43, "\ud800", "ä" * 1000])
def test_ticket_is_refused_when_nobody_issued_it(ticket: str) -> None:
    assert refused(lambda: _redeem(_book(), ticket)).code == "identity_invalid"


def test_refusals_do_not_tell_why() -> None:
    book = _book()
    used, late, lost = _issue(book), _issue(book), _issue(book)
    _redeem(book, used)
    details = {
        refused(lambda: _redeem(book, used)).detail,
        refused(lambda: _redeem(book, late, now=NOW + LIFETIME_SECONDS)).detail,
        refused(lambda: _redeem(book, lost, instance="other")).detail,
        refused(lambda: _redeem(book, "unknown")).detail,
    }
    assert len(details) == 1


def test_ticket_ends_with_the_subjects_own_token() -> None:
    book = _book()
    ticket = _issue(book, subject=subject(expires_at=int(NOW) + 60))
    assert refused(lambda: _redeem(book, ticket, now=NOW + 60)).code == "identity_invalid"


def test_ticket_is_good_for_each_of_its_actions_and_for_no_other() -> None:
    book = _book()
    both = frozenset({"files.send", "files.put"})
    for action in sorted(both):
        assert _redeem(book, _issue(book, actions=both), action=action).actions == both
    ticket = _issue(book, actions=both)
    assert refused(lambda: _redeem(book, ticket, action="files.delete")).code == "identity_invalid"
    assert refused(lambda: _redeem(book, ticket, action="files.send")).code == "identity_invalid"


def test_ticket_is_not_issued_when_no_action_takes_it() -> None:
    book = _book()
    assert refused(lambda: _issue(book, actions=frozenset())).code == "upstream_failed"
    assert len(book) == 0


@pytest.mark.parametrize("path", ["/a/../b", "/a//b", "/a%2Fb", "/a;b", "no slash", ""])
def test_upload_path_is_refused_when_a_request_to_it_would_be(path: str) -> None:
    assert refused(lambda: upload_segments(path)).code == "upstream_failed"


def test_upload_path_is_read_as_a_request_to_it_is() -> None:
    assert upload_segments("/upload/v1/a%20b") == ("upload", "v1", "a b")


def test_book_refuses_one_ticket_past_its_limit() -> None:
    book = _book(outstanding_max=2)
    _issue(book)
    _issue(book, subject=subject(tenant="other"))
    assert refused(lambda: _issue(book)).code == "throttled"


def test_one_tenant_does_not_use_up_the_book_of_another() -> None:
    book = _book(outstanding_per_tenant_max=2)
    first = _issue(book)
    _issue(book)
    assert refused(lambda: _issue(book)).code == "throttled"
    _issue(book, subject=subject(tenant="other"))
    _redeem(book, first)
    _issue(book)


def test_book_forgets_what_has_expired() -> None:
    book = _book(outstanding_max=200, outstanding_per_tenant_max=200)
    for _ in range(100):
        _issue(book)
    later = NOW + LIFETIME_SECONDS
    kept = [_issue(book, now=later) for _ in range(4)]
    assert len(book) == 4
    assert _redeem(book, kept[0], now=later).expires_at == later + LIFETIME_SECONDS


def test_book_stays_bounded_under_any_load() -> None:
    book = _book(outstanding_max=50, outstanding_per_tenant_max=50)
    thrown = 0
    for step in itertools.count():
        if step == 500:
            break
        try:
            _issue(book, now=NOW + step)
        except Refusal:
            thrown += 1
    assert thrown and len(book) <= 50
