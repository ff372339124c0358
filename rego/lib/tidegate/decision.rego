# The decision: what the policies said, combined into one document.
#
# Every package below data.policies is asked for its rules by name; each is a set. The strongest effect wins, the
# obligations of everything that held are kept, and nothing runs unless something granted it:
# an `allow`, or a `require_hitl` that a person has to approve, of the call's own connector or of policies.common.
# A rule of any other package can only restrict.
#
# Only builtins that are native and sound in Wasm are used (rego/capabilities.json).
package tidegate

decision := {"effect": effect, "reasons": reasons, "obligations": obligations}

default effect := "DENY"

effect := "REQUIRE_STEP_UP" if {
	permitted
	count(step_ups) > 0
} else := "REQUIRE_HITL" if {
	permitted
	count(open_holds) > 0
} else := "THROTTLE" if {
	permitted
	count(throttles) > 0
} else := "ROUTE" if {
	permitted
	count(routes) > 0
} else := "ALLOW" if {
	permitted
}

permitted if {
	count(refusals) == 0
	granted
}

granted if count(allow_reasons) > 0

granted if {
	some hold in holds
	speaks_for_call(hold.package)
}

refusals := deny_reasons | malformed_reasons

# Whose grants count for this call.
speaks_for_call("common")

speaks_for_call(name) if name == input.resource.properties.connector

reasons := sort(refusals) if count(refusals) > 0

reasons := no_rule_matched if {
	count(refusals) == 0
	not granted
}

# What nothing restricts passes for the reasons of those who allowed it, which is what most calls do.
reasons := sort(allow_reasons) if {
	effect == "ALLOW"
	count(restriction_reasons) == 0
}

reasons := sort(restriction_reasons | passing_reasons) if {
	permitted
	count(restriction_reasons) > 0
}

no_rule_matched := [{
	"code": "no_rule_matched",
	"rule": "tidegate.decision",
	"message": "no rule of this connector's policy, nor of the common policy, grants this call",
}]

# Why the call passes is no reason for a call that waits.
passing_reasons := allow_reasons if not effect in {"REQUIRE_STEP_UP", "REQUIRE_HITL"}

passing_reasons := set() if effect in {"REQUIRE_STEP_UP", "REQUIRE_HITL"}
