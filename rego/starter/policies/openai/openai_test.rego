package policies.openai_test

import data.policies.openai

asked(roles, args) := {
	"subject": {"properties": {"roles": roles}},
	"resource": {"properties": {"connector": "openai"}},
	"args": args,
}

test_models_are_allowed_for_developers if {
	asking := asked(["developer"], {"model": "m", "max_tokens": 32768})
	count(openai.allow) == 1 with input as asking
	count(openai.deny) == 0 with input as asking
}

test_models_are_not_allowed_without_the_role if {
	count(openai.allow) == 0 with input as asked(["triage"], {"model": "m"})
}

test_other_connectors_are_left_alone if {
	asking := object.union(
		asked(["developer"], {"max_tokens": 32769}),
		{"resource": {"properties": {"connector": "webhook"}}},
	)
	count(openai.deny) == 0 with input as asking
}

test_answers_longer_than_the_limit_are_denied if {
	count(openai.deny) == 1 with input as asked(["developer"], {"model": "m", "max_tokens": 32769})
}

test_answers_longer_than_the_limit_are_denied_by_the_newer_name_too if {
	count(openai.deny) == 1 with input as asked(["developer"], {"model": "m", "max_completion_tokens": 32769})
}
