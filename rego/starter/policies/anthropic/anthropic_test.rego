package policies.anthropic_test

import data.policies.anthropic

asked(roles, args) := {
	"subject": {"properties": {"roles": roles}},
	"resource": {"properties": {"connector": "anthropic"}},
	"args": args,
}

test_models_are_allowed_for_developers if {
	asking := asked(["developer"], {"model": "m", "max_tokens": 32768})
	count(anthropic.allow) == 1 with input as asking
	count(anthropic.deny) == 0 with input as asking
}

test_models_are_not_allowed_without_the_role if {
	count(anthropic.allow) == 0 with input as asked(["triage"], {"model": "m"})
}

test_other_connectors_are_left_alone if {
	asking := object.union(
		asked(["developer"], {"max_tokens": 32769}),
		{"resource": {"properties": {"connector": "webhook"}}},
	)
	count(anthropic.deny) == 0 with input as asking
}

test_answers_longer_than_the_limit_are_denied if {
	count(anthropic.deny) == 1 with input as asked(["developer"], {"model": "m", "max_tokens": 32769})
}
