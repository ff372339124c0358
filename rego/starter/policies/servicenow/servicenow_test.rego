package policies.servicenow_test

import data.policies.servicenow

asked(action, mode, roles, environment) := {
	"subject": {"type": "agent", "id": "agent-7", "properties": {"roles": roles, "environment": environment}},
	"action": {"name": action, "properties": {"mode": mode}},
	"resource": {"type": "incident", "id": "INC001", "properties": {"connector": "servicenow"}},
	"args": {},
}

codes(elements) := {element.code | some element in elements}

test_reads_are_allowed_for_triage if {
	codes(servicenow.allow) == {"reader"} with input as asked("servicenow.incident.list", "read", ["triage"], "test")
}

test_reads_in_prod_are_not_held if {
	count(servicenow.require_hitl) == 0 with input as asked("servicenow.incident.list", "read", ["triage"], "prod")
}

test_reads_are_not_allowed_without_a_role if {
	count(servicenow.allow) == 0 with input as asked("servicenow.incident.list", "read", ["developer"], "test")
}

test_incident_writes_are_allowed_for_writers if {
	every role in ["triage", "operator"] {
		codes(servicenow.allow) == {"incident_writer"} with input as asked(
			"servicenow.incident.update",
			"write",
			[role],
			"test",
		)
	}
}

test_change_requests_are_for_operators if {
	codes(servicenow.allow) == {"change_writer"} with input as asked(
		"servicenow.change_request.update",
		"write",
		["operator"],
		"test",
	)
	count(servicenow.allow) == 0 with input as asked("servicenow.change_request.update", "write", ["triage"], "test")
}

test_writes_to_prod_are_held if {
	held := servicenow.require_hitl with input as asked("servicenow.incident.update", "write", ["triage"], "prod")
	codes(held) == {"prod_write"}
}

test_writes_to_prod_of_strangers_are_not_even_held if {
	count(servicenow.require_hitl) == 0 with input as asked("servicenow.incident.update", "write", ["guest"], "prod")
}

test_deletes_are_denied_to_everybody if {
	every role in ["triage", "operator", "developer"] {
		codes(servicenow.deny) == {"no_deletes"} with input as asked(
			"servicenow.incident.delete",
			"write",
			[role],
			"test",
		)
	}
}
