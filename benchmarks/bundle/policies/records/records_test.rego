package policies.records_test

import data.policies.records

asked(name, mode, args) := {
	"subject": {"id": "triage-bot", "properties": {"roles": ["triage"], "environment": "test"}},
	"action": {"name": name, "properties": {"mode": mode}},
	"resource": {"properties": {"connector": "records", "instance": "records"}},
	"args": args,
	"context": {"clock": {"minute_of_day": 600}},
}

test_triage_searches if {
	question := asked("records.record.search", "read", {"kind": "incident", "text": "printer"})
	count(records.allow) == 1 with input as question
	count(records.deny) == 0 with input as question
}

test_a_frozen_record_is_not_changed if {
	question := asked("records.record.update", "write", {"kind": "incident", "id": "frozen-7", "text": "x"})
	some refusal in records.deny with input as question
	refusal.code == "frozen"
}
