package policies.webhook_test

import data.policies.webhook

asked(roles, environment) := {
	"subject": {"properties": {"roles": roles, "environment": environment}},
	"resource": {"properties": {"connector": "webhook"}},
}

test_events_are_allowed_for_developers if {
	count(webhook.allow) == 1 with input as asked(["developer"], "test")
	count(webhook.require_hitl) == 0 with input as asked(["developer"], "test")
}

test_events_are_not_allowed_without_the_role if {
	count(webhook.allow) == 0 with input as asked(["triage"], "test")
}

test_events_from_prod_are_held if {
	count(webhook.require_hitl) == 1 with input as asked(["developer"], "prod")
}

test_strangers_in_prod_are_not_even_held if {
	count(webhook.require_hitl) == 0 with input as asked(["guest"], "prod")
}
