"""What a decision point must decide: the fixture of the certification scenario, and the scenario "Todo".

Source: OpenID AuthZEN working group, "Authorization API 1.0 - Certification Scenario" (required policy behaviour), and
the payloads of the Todo interoperability scenario for the Authorization API 1.0. Facts only; requests are made here.
"""

from __future__ import annotations

from typing import Any, Final

CITADEL: Final = "@the-citadel.com"
SMITHS: Final = "@the-smiths.com"

EMAILS: Final = {
    "rick": f"rick{CITADEL}",
    "morty": f"morty{CITADEL}",
    "summer": f"summer{SMITHS}",
    "beth": f"beth{SMITHS}",
    "jerry": f"jerry{SMITHS}",
}
_NUMBERS: Final = {"rick": 0, "morty": 1, "summer": 2, "beth": 3, "jerry": 4}
_LISTS: Final = {"rick": 2, "morty": 1, "summer": 3, "beth": 4, "jerry": 5}
_CODES: Final = ("A", "E", "I", "M", "Q")

SCENARIO: Final = {
    # who: create, update rick's, update own, delete rick's, delete own (everybody sees people and the list)
    "rick": (True, True, True, True, True),
    "morty": (True, False, True, False, True),
    "summer": (True, False, True, False, True),
    "beth": (False, False, False, False, False),
    "jerry": (False, False, False, False, False),
}


def person(name: str) -> dict[str, Any]:
    """A user of the Todo scenario as a subject; identifiers are opaque there."""
    code = _CODES[_NUMBERS[name]]
    return {"type": "user", "id": f"CiRmZD{code[:1]}2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs"}


def item(owner: str) -> dict[str, Any]:
    """An entry of somebody's in the list."""
    number = f"7240d0db-8ff0-41ec-98b2-34a096273b9{_LISTS[owner]}"
    return {"type": "todo", "id": number, "properties": {"ownerID": EMAILS[owner]}}


def todo_decisions() -> list[tuple[str, dict[str, Any], bool]]:
    """The forty single decisions: a sentence, a request, what must come out."""
    found: list[tuple[str, dict[str, Any], bool]] = []
    for name, (create, update_rick, update_own, delete_rick, delete_own) in SCENARIO.items():
        other = "morty" if name == "rick" else "rick"
        listed = {"type": "todo", "id": "todo-1"}
        asked: list[tuple[str, str, dict[str, Any], bool]] = [
            ("sees beth", "can_read_user", {"type": "user", "id": EMAILS["beth"]}, True),
            ("sees themself", "can_read_user", {"type": "user", "id": EMAILS[name]}, True),
            ("sees the list", "can_read_todos", listed, True),
            ("adds to the list", "can_create_todo", listed, create),
            (f"changes {other}'s entry", "can_update_todo", item(other), update_rick),
            ("changes their own entry", "can_update_todo", item(name), update_own),
            (f"deletes {other}'s entry", "can_delete_todo", item(other), delete_rick),
            ("deletes their own entry", "can_delete_todo", item(name), delete_own),
        ]
        for what, action, resource, expected in asked:
            request = {"subject": person(name), "action": {"name": action}, "resource": resource}
            found.append((f"{name} {what}", request, expected))
    return found


SCENARIO_BATCHES: Final = [
    ("rick", ("rick", "jerry"), (True, True)),
    ("morty", ("rick", "morty"), (False, True)),
    ("jerry", ("rick", "jerry"), (False, False)),
]
"""Who changes whose entries in one request, and what must come out."""

ALICE: Final[dict[str, Any]] = {"type": "user", "id": "alice"}
BOB: Final[dict[str, Any]] = {"type": "user", "id": "bob"}
ADMIN: Final[dict[str, Any]] = {**BOB, "properties": {"role": "admin"}}
RECORD: Final[dict[str, Any]] = {"type": "record", "id": "record-1"}
ACTIVE: Final[dict[str, Any]] = {**RECORD, "properties": {"status": "active"}}
ARCHIVED: Final[dict[str, Any]] = {"type": "record", "id": "record-2", "properties": {"status": "archived"}}


def record_question(
    subject: dict[str, Any], action: str, resource: dict[str, Any], **properties: Any
) -> dict[str, Any]:
    """A request about records."""
    named: dict[str, Any] = {"name": action}
    if properties:
        named["properties"] = properties
    return {"subject": subject, "action": named, "resource": resource}


CERTIFIED: Final[list[tuple[str, dict[str, Any], bool]]] = [
    ("1 alice reads", record_question(ALICE, "read", RECORD), True),
    ("2 alice writes", record_question(ALICE, "write", RECORD), True),
    ("3 bob reads", record_question(BOB, "read", RECORD), True),
    ("4 bob does not write", record_question(BOB, "write", RECORD), False),
    ("5 alice does not write to the archive", record_question(ALICE, "write", ARCHIVED), False),
    ("6 an admin writes to the archive", record_question(ADMIN, "write", ARCHIVED), True),
    ("7 alice deletes softly", record_question(ALICE, "delete", RECORD, soft=True), True),
    ("8 alice does not delete for good", record_question(ALICE, "delete", RECORD, soft=False), False),
]
