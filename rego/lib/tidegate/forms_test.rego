package tidegate_forms_test

import data.tidegate

asked := {"resource": {"properties": {"connector": "crm"}}}

refused(rule, element) if {
	rules := object.union({"allow": {"reader"}}, {rule: {element}})
	decision := tidegate.decision with input as asked with data.policies as {"crm": rules}
	decision.effect == "DENY"
	decision.obligations == {}
	some reason in decision.reasons
	reason.code == "decision_malformed"
	reason.rule == concat(".", ["policies.crm", rule])
}

accepted(rule, element) if {
	rules := object.union({"allow": {"reader"}}, {rule: {element}})
	decision := tidegate.decision with input as asked with data.policies as {"crm": rules}
	decision.effect != "DENY"
}

test_rules_that_are_no_sets_are_malformed if {
	names := ["deny", "allow", "require_step_up", "require_hitl", "throttle", "route", "redact"]
	every name in names {
		every value in [true, false, null, 1, "x", ["x"], {"code": "x"}, [], {}] {
			rules := object.union({"allow": {"reader"}}, {name: value})
			decision := tidegate.decision with input as asked with data.policies as {"crm": rules}
			decision.effect == "DENY"
			some reason in decision.reasons
			reason.code == "decision_malformed"
		}
	}
}

test_malformed_rules_of_other_packages_deny_too if {
	every name in ["deny", "require_step_up", "require_hitl", "throttle", "route", "redact"] {
		policies := {"crm": {"allow": {"reader"}}, "mail": {name: true}}
		decision := tidegate.decision with input as asked with data.policies as policies
		decision.effect == "DENY"
	}
}

test_grants_of_other_packages_are_not_even_read if {
	policies := {"crm": {"allow": {"reader"}}, "mail": {"allow": true}}
	decision := tidegate.decision with input as asked with data.policies as policies
	decision.effect == "ALLOW"
}

odd := ["", 1, true, null, [], {}, {"x"}, {"code": ""}, {"code": 1}, {"message": "m"}, {"code": "c", "message": 1}]

test_allow_elements_of_another_form_are_malformed if {
	every element in array.concat(odd, [{"code": "c", "chain": "x"}]) {
		refused("allow", element)
	}
}

hold := {"code": "c", "chain": "x"}

test_holds_of_another_form_are_malformed if {
	every part in [
		{"chain": ""},
		{"chain": 1},
		{"chian": "x"},
		{"decide_within_seconds": 0},
		{"decide_within_seconds": -1},
		{"decide_within_seconds": 1.5},
		{"decide_within_seconds": "60"},
		{"decide_within_seconds": null},
		{"decide_within_seconds": 31622401},
		{"use_within_seconds": 0},
		{"use_within_seconds": 31622401},
		{"on_approval": "run"},
		{"on_approval": null},
	] {
		refused("require_hitl", object.union(hold, part))
	}
	every element in array.concat(odd, ["one-approver", {"code": "c"}]) {
		refused("require_hitl", element)
	}
}

test_holds_at_the_limits_are_accepted if {
	every part in [
		{},
		{"message": ""},
		{"decide_within_seconds": 1},
		{"decide_within_seconds": 31622400, "use_within_seconds": 31622400},
		{"use_within_seconds": 1, "on_approval": "dispatch"},
		{"on_approval": "grant"},
	] {
		accepted("require_hitl", object.union(hold, part))
	}
}

step_up := {"code": "c", "acr_values": ["phr"], "max_age_seconds": 300}

test_step_ups_of_another_form_are_malformed if {
	every part in [
		{"acr_values": []},
		{"acr_values": set()},
		{"acr_values": "phr"},
		{"acr_values": [""]},
		{"acr_values": [1]},
		{"acr_values": {1}},
		{"acr_values": {"phr": true}},
		{"max_age_seconds": -1},
		{"max_age_seconds": 31622401},
		{"max_age_seconds": "300"},
		{"max_age": 1},
	] {
		refused("require_step_up", object.union(step_up, part))
	}
	every element in array.concat(odd, ["phr", {"code": "c", "acr_values": ["phr"]}]) {
		refused("require_step_up", element)
	}
}

test_step_ups_at_the_limits_are_accepted if {
	every part in [{"max_age_seconds": 0}, {"max_age_seconds": 31622400}, {"acr_values": {"a", "b"}}] {
		accepted("require_step_up", object.union(step_up, part))
	}
}

throttle := {"code": "c", "key": "k", "limit": 10, "window_seconds": 60}

test_throttles_of_another_form_are_malformed if {
	every part in [
		{"key": ""},
		{"key": ["k"]},
		{"limit": -1},
		{"limit": 0.5},
		{"limit": 1000000001},
		{"window_seconds": 0},
		{"window_seconds": 31622401},
		{"burst": 1},
	] {
		refused("throttle", object.union(throttle, part))
	}
	every element in array.concat(odd, ["k", {"code": "c", "key": "k", "limit": 1}]) {
		refused("throttle", element)
	}
}

test_throttles_at_the_limits_are_accepted if {
	every part in [{"limit": 0}, {"limit": 1000000000}, {"window_seconds": 1}, {"window_seconds": 31622400}] {
		accepted("throttle", object.union(throttle, part))
	}
}

route := {"code": "c", "target": "t"}

test_routes_of_another_form_are_malformed if {
	every part in [{"target": ""}, {"target": 1}, {"fallback": "x"}, {"fallback": {"x"}}, {"fallback": [""]}, {"to": "x"}] {
		refused("route", object.union(route, part))
	}
	every element in array.concat(odd, ["t", {"code": "c"}]) {
		refused("route", element)
	}
}

test_routes_with_fallbacks_are_accepted if {
	accepted("route", object.union(route, {"fallback": ["b", "a"]}))
}

test_redactions_of_another_form_are_malformed if {
	every element in [
		"",
		"/notes",
		1,
		{},
		{"args": ""},
		{"args": "notes"},
		{"args": 1},
		{"response": "notes"},
		{"response": ""},
		{"args": "/notes", "response": "$.x"},
		{"args": "/notes", "code": "c"},
	] {
		refused("redact", element)
	}
}

test_redactions_are_accepted if {
	accepted("redact", {"args": "/notes"})
	accepted("redact", {"response": "$.result[*].ssn"})
}
