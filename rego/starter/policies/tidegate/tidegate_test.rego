package policies.tidegate_test

import data.policies.tidegate as gate

granted(role, action) if {
	elements := gate.allow with input as {"subject": {"properties": {"roles": [role]}}, "action": {"name": action}}
	count(elements) == 1
}

test_callers_see_their_calls if {
	every role in ["triage", "developer", "approver", "operator"] {
		granted(role, "tidegate.call.read")
		granted(role, "tidegate.approval.withdraw")
	}
}

test_approvers_and_operators_vote if {
	every role in ["approver", "operator"] {
		granted(role, "tidegate.approval.vote")
	}
}

test_nobody_else_votes if {
	every role in ["triage", "developer", "auditor", "publisher", "guest"] {
		not granted(role, "tidegate.approval.vote")
	}
}

test_only_operators_set_switches if {
	granted("operator", "tidegate.switch.set")
	every role in ["triage", "developer", "approver", "auditor", "publisher", "guest"] {
		not granted(role, "tidegate.switch.set")
		not granted(role, "tidegate.switch.clear")
	}
}

test_auditors_read_calls_and_change_nothing if {
	granted("auditor", "tidegate.call.read")
	every action in ["tidegate.switch.set", "tidegate.approval.withdraw", "tidegate.call.create"] {
		not granted("auditor", action)
	}
}

test_unknown_operations_are_granted_to_nobody if {
	every role in ["triage", "developer", "approver", "operator", "auditor", "publisher"] {
		not granted(role, "tidegate.ledger.erase")
	}
}

test_callers_ask_only_about_themselves if {
	every role in ["triage", "developer", "approver", "operator"] {
		granted(role, "tidegate.access.evaluate")
		not granted(role, "tidegate.access.subject")
	}
}

test_enforcers_ask_about_others_and_do_nothing_else if {
	granted("enforcer", "tidegate.access.subject")
	every action in ["tidegate.call.create", "tidegate.call.read", "tidegate.approval.vote", "tidegate.opa.log"] {
		not granted("enforcer", action)
	}
}

test_only_collectors_hand_in_what_an_engine_logged if {
	granted("collector", "tidegate.opa.log")
	granted("collector", "tidegate.opa.status")
	every role in ["triage", "developer", "approver", "operator", "auditor", "publisher", "enforcer"] {
		not granted(role, "tidegate.opa.log")
	}
}

test_auditors_and_publishers_see_what_another_bundle_would_do if {
	every role in ["auditor", "publisher"] {
		every action in ["tidegate.simulate.subject", "tidegate.simulate.rules", "tidegate.replay.run"] {
			granted(role, action)
		}
	}
}

test_operators_simulate_for_themselves_and_see_the_shadow if {
	granted("operator", "tidegate.simulate.run")
	granted("operator", "tidegate.shadow.read")
	every action in ["tidegate.simulate.subject", "tidegate.simulate.rules", "tidegate.replay.run"] {
		not granted("operator", action)
	}
}

test_callers_and_approvers_ask_nothing_about_policy if {
	every role in ["triage", "developer", "approver", "enforcer", "collector", "guest"] {
		every action in ["tidegate.simulate.run", "tidegate.shadow.read", "tidegate.replay.run"] {
			not granted(role, action)
		}
	}
}

test_whoever_asks_policy_may_ask_people_too if {
	every role in ["triage", "developer", "approver", "operator", "enforcer"] {
		every verb in ["create", "show", "cancel"] {
			granted(role, concat(".", ["tidegate.access_request", verb]))
		}
	}
}

test_nobody_else_opens_access_requests if {
	every role in ["auditor", "publisher", "collector", "guest"] {
		every verb in ["create", "show", "cancel"] {
			not granted(role, concat(".", ["tidegate.access_request", verb]))
		}
	}
}
