package tidegate_test

import data.tidegate

asked := {
	"v": 1,
	"subject": {"type": "agent", "id": "agent-7", "properties": {"roles": ["triage"], "environment": "prod"}},
	"action": {"name": "crm.lead.update", "properties": {"mode": "write"}},
	"resource": {"type": "lead", "id": "L1", "properties": {"connector": "crm", "instance": "crm"}},
	"args": {},
	"context": {"clock": {"weekday": "Monday", "minute_of_day": 600}},
}

reader := {"code": "reader", "message": "readers read"}

hold := {"code": "prod_write", "message": "a person looks", "chain": "one-approver"}

decide(policies) := decision if {
	decision := tidegate.decision with input as asked with data.policies as policies
}

decide_approved(policies, state, chains) := decision if {
	context := {"clock": {}, "approval": {"state": state, "chains": chains}}
	decision := tidegate.decision with input as object.union(asked, {"context": context}) with data.policies as policies
}

codes(decision) := [reason.code | some reason in decision.reasons]

approval(decision) := decision.obligations.approval

# --- nothing said

test_no_policy_denies if {
	decision := decide({})
	decision.effect == "DENY"
	codes(decision) == ["no_rule_matched"]
	decision.obligations == {}
}

test_empty_rules_deny if {
	decision := decide({"crm": {"allow": set(), "deny": set()}, "other": {"helper": 1}})
	codes(decision) == ["no_rule_matched"]
}

test_an_input_without_connector_denies if {
	decision := tidegate.decision with input as {} with data.policies as {"crm": {"allow": {"x"}}}
	decision.effect == "DENY"
	codes(decision) == ["no_rule_matched"]
}

# --- allow

test_allow_of_own_package_allows if {
	decide({"crm": {"allow": {reader}}}) == {
		"effect": "ALLOW",
		"reasons": [{"code": "reader", "rule": "policies.crm.allow", "message": "readers read"}],
		"obligations": {},
	}
}

test_allow_as_a_string_is_code_and_message if {
	decide({"crm": {"allow": {"reader"}}}).reasons == [{
		"code": "reader",
		"rule": "policies.crm.allow",
		"message": "reader",
	}]
}

test_allow_of_common_allows if {
	decide({"common": {"allow": {"anybody"}}}).effect == "ALLOW"
}

test_allow_of_another_package_does_not_count if {
	codes(decide({"mail": {"allow": {reader}}})) == ["no_rule_matched"]
}

# --- deny

test_deny_of_any_package_wins if {
	decision := decide({"crm": {"allow": {reader}, "require_hitl": {hold}}, "mail": {"deny": {"closed"}}})
	decision.effect == "DENY"
	decision.reasons == [{"code": "closed", "rule": "policies.mail.deny", "message": "closed"}]
	decision.obligations == {}
}

test_deny_elements_of_every_type_deny if {
	every element in [1, 0, true, false, null, "", [], {}, set(), {"set"}, {"code": 1}, {"code": ""}, {"message": 2}] {
		decision := decide({"crm": {"allow": {reader}, "deny": {element}}})
		decision.effect == "DENY"
		codes(decision) == ["denied"]
	}
}

test_deny_says_what_its_author_wrote if {
	decide({"crm": {"deny": {{"code": "c", "message": "m", "ticket": 7}}}}).reasons[0].message == "m"
	decide({"crm": {"deny": {{"code": "c"}}}}).reasons[0].message == "c"
	contains(decide({"crm": {"deny": {7}}}).reasons[0].message, "number")
}

test_approved_calls_are_still_denied if {
	decide_approved({"crm": {"require_hitl": {hold}, "deny": {"no"}}}, "approved", ["one-approver"]).effect == "DENY"
}

# --- precedence

step_up := {"code": "fresh", "acr_values": ["phr"], "max_age_seconds": 300}

throttle := {"code": "rate", "key": "crm", "limit": 10, "window_seconds": 60}

route := {"code": "near", "target": "crm-eu"}

test_effects_combine_by_precedence if {
	steps := [
		["ALLOW", {"allow": {reader}}],
		["ROUTE", {"route": {route}}],
		["THROTTLE", {"throttle": {throttle}}],
		["REQUIRE_HITL", {"require_hitl": {hold}}],
		["REQUIRE_STEP_UP", {"require_step_up": {step_up}}],
		["DENY", {"deny": {"no"}}],
	]
	every position, step in steps {
		rules := {name: rule | some at, [_, part] in steps; at <= position; some name, rule in part}
		decide({"crm": rules}).effect == step[0]
	}
}

test_obligations_of_everything_that_held_are_kept if {
	decision := decide({"crm": {
		"allow": {reader},
		"require_step_up": {step_up},
		"require_hitl": {hold},
		"throttle": {throttle},
		"route": {route},
		"redact": {{"args": "/notes"}, {"response": "$.ssn"}},
	}})
	decision.obligations == {
		"step_up": {"acr_values": ["phr"], "max_age_seconds": 300},
		"approval": {
			"chains": ["one-approver"],
			"decide_within_seconds": 86400,
			"use_within_seconds": 900,
			"on_approval": "grant",
		},
		"throttle": [{"key": "crm", "limit": 10, "window_seconds": 60}],
		"route": {"target": "crm-eu", "fallback": []},
		"redact": ["/notes"],
		"response": {"redact": ["$.ssn"]},
	}
	codes(decision) == ["fresh", "near", "prod_write", "rate"]
}

test_limits_and_routes_grant_nothing if {
	every rules in [{"throttle": {throttle}}, {"route": {route}}, {"require_step_up": {step_up}}] {
		codes(decide({"crm": rules})) == ["no_rule_matched"]
	}
}

test_reasons_of_a_passing_call_say_why_it_passes_and_what_limits_it if {
	codes(decide({"crm": {"allow": {reader}, "throttle": {throttle}}})) == ["rate", "reader"]
}

# --- holds

test_a_hold_of_the_own_package_holds if {
	decision := decide({"crm": {"require_hitl": {hold}}})
	decision.effect == "REQUIRE_HITL"
	codes(decision) == ["prod_write"]
}

test_a_hold_of_another_package_restricts_but_grants_nothing if {
	codes(decide({"mail": {"require_hitl": {hold}}})) == ["no_rule_matched"]
	decide({"crm": {"allow": {reader}}, "mail": {"require_hitl": {hold}}}).effect == "REQUIRE_HITL"
}

test_holds_combine_to_all_chains_and_shortest_times if {
	terms := approval(decide({
		"crm": {"require_hitl": {object.union(hold, {"decide_within_seconds": 600, "on_approval": "dispatch"})}},
		"common": {"require_hitl": {{
			"code": "legal",
			"chain": "legal",
			"use_within_seconds": 60,
			"on_approval": "dispatch",
		}}},
	}))
	terms == {
		"chains": ["legal", "one-approver"],
		"decide_within_seconds": 600,
		"use_within_seconds": 60,
		"on_approval": "dispatch",
	}
}

test_grant_is_stronger_than_dispatch if {
	terms := approval(decide({"crm": {"require_hitl": {
		object.union(hold, {"on_approval": "dispatch"}),
		{"code": "legal", "chain": "legal"},
	}}}))
	terms.on_approval == "grant"
}

test_times_longer_than_the_default_count_alone_only if {
	terms := approval(decide({"crm": {"require_hitl": {object.union(hold, {"decide_within_seconds": 604800})}}}))
	terms.decide_within_seconds == 604800
	both := approval(decide({"crm": {"require_hitl": {
		object.union(hold, {"decide_within_seconds": 604800}),
		{"code": "legal", "chain": "legal"},
	}}}))
	both.decide_within_seconds == 86400
}

test_an_approved_chain_lifts_its_hold_and_keeps_the_reason if {
	decision := decide_approved({"crm": {"allow": {reader}, "require_hitl": {hold}}}, "approved", ["one-approver"])
	decision.effect == "ALLOW"
	codes(decision) == ["prod_write", "reader"]
	decision.obligations == {}
}

test_an_approved_hold_runs_without_an_allow if {
	decide_approved({"crm": {"require_hitl": {hold}}}, "approved", ["one-approver"]).effect == "ALLOW"
}

test_other_states_lift_nothing if {
	every state in ["pending", "consumed", "denied", "expired", "withdrawn", "superseded", "Approved", true] {
		decide_approved({"crm": {"require_hitl": {hold}}}, state, ["one-approver"]).effect == "REQUIRE_HITL"
	}
}

test_another_chain_lifts_nothing if {
	decide_approved({"crm": {"require_hitl": {hold}}}, "approved", ["two-person"]).effect == "REQUIRE_HITL"
}

test_chains_that_are_still_open_stay if {
	policies := {"crm": {"require_hitl": {hold, {"code": "legal", "chain": "legal"}}}}
	decision := decide_approved(policies, "approved", ["one-approver"])
	decision.effect == "REQUIRE_HITL"
	approval(decision).chains == ["legal"]
	codes(decision) == ["legal", "prod_write"]
}

# --- the other obligations

test_step_ups_combine_to_all_values_and_the_shortest_age if {
	decision := decide({"crm": {"allow": {reader}, "require_step_up": {
		step_up,
		{"code": "gold", "acr_values": {"gold"}, "max_age_seconds": 60},
	}}})
	decision.obligations.step_up == {"acr_values": ["gold", "phr"], "max_age_seconds": 60}
}

test_throttles_are_all_kept if {
	decision := decide({
		"crm": {"allow": {reader}, "throttle": {throttle}},
		"common": {"throttle": {{"code": "all", "key": "all", "limit": 0, "window_seconds": 1}}},
	})
	count(decision.obligations.throttle) == 2
}

test_one_target_named_twice_is_one_route if {
	decision := decide({
		"crm": {"allow": {reader}, "route": {route}},
		"common": {"route": {{"code": "also", "target": "crm-eu", "fallback": []}}},
	})
	decision.obligations.route == {"target": "crm-eu", "fallback": []}
}

test_two_targets_are_malformed if {
	decision := decide({"crm": {"allow": {reader}, "route": {route, {"code": "far", "target": "crm-us"}}}})
	decision.effect == "DENY"
	codes(decision) == ["decision_malformed"]
}

test_one_target_with_two_fallbacks_is_malformed if {
	decision := decide({"crm": {"allow": {reader}, "route": {
		route,
		{"code": "far", "target": "crm-eu", "fallback": ["crm-us"]},
	}}})
	codes(decision) == ["decision_malformed"]
}

# --- giving a decision again

test_permissions_are_kept_for_the_shortest_time_asked_for if {
	rules := {"allow": {reader}, "cache": {{"seconds": 60}, {"seconds": 5}}}
	decide({"crm": rules}).obligations == {"cache_seconds": 5}
	decide({"crm": rules, "common": {"cache": {{"seconds": 2}}}}).obligations == {"cache_seconds": 2}
}

test_other_packages_do_not_ask_for_caching if {
	decide({"crm": {"allow": {reader}}, "mail": {"cache": {{"seconds": 60}}}}).obligations == {}
}

test_nothing_but_a_plain_permission_is_kept if {
	every rules in [{"deny": {"no"}}, {"require_hitl": {hold}}, {"throttle": {throttle}}, {"route": {route}}] {
		decision := decide({"crm": object.union(rules, {"allow": {reader}, "cache": {{"seconds": 60}}})})
		not decision.obligations.cache_seconds
	}
	decide({"crm": {"cache": {{"seconds": 60}}}}).effect == "DENY"
}

test_nothing_is_kept_when_an_element_has_another_form if {
	wrong_seconds := [{"seconds": value} | some value in [0, 3601, 1.5, "60"]]
	every element in array.concat(wrong_seconds, [{"secnds": 60}, {}, "60", 60, true]) {
		decision := decide({"crm": {"allow": {reader}, "cache": {{"seconds": 60}, element}}})
		decision.effect == "ALLOW"
		decision.obligations == {}
	}
}
