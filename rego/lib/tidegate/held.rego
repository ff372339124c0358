# What held: the elements of every package's rules, taken apart into reasons and terms.
#
# A rule that is no set, and an element that is not of its rule's form, is a refusal with the code decision_malformed:
# a policy that was written wrongly must not count as one that said nothing.
package tidegate

# Any element of any type in any package's `deny` denies.
deny_reasons contains {"code": code_of(element), "rule": rule_name(name, "deny"), "message": message_of(element)} if {
	some name
	some element in data.policies[name].deny
}

allow_reasons contains {"code": code_of(element), "rule": rule_name(name, "allow"), "message": message_of(element)} if {
	some name
	some element in data.policies[name].allow
	speaks_for_call(name)
}

step_ups contains {"package": name, "element": element} if {
	some name
	some element in data.policies[name].require_step_up
}

holds contains {"package": name, "element": element} if {
	some name
	some element in data.policies[name].require_hitl
}

throttles contains {"package": name, "element": element} if {
	some name
	some element in data.policies[name].throttle
}

routes contains {"package": name, "element": element} if {
	some name
	some element in data.policies[name].route
}

redactions contains element if {
	some name
	some element in data.policies[name].redact
}

# A hold is over for the chain that approved this very call.
open_holds contains hold if {
	some hold in holds
	not approved(hold.element.chain)
}

restriction_reasons contains reason_of(held, "require_step_up") if some held in step_ups

restriction_reasons contains reason_of(held, "require_hitl") if some held in holds

restriction_reasons contains reason_of(held, "throttle") if some held in throttles

restriction_reasons contains reason_of(held, "route") if some held in routes

reason_of(held, rule) := {
	"code": code_of(held.element),
	"rule": rule_name(held.package, rule),
	"message": message_of(held.element),
}

rule_name(name, rule) := concat(".", ["policies", name, rule])

# Total: a denial needs a code, whatever its author put into the set.
code_of(element) := element if {
	is_string(element)
	element != ""
} else := element.code if {
	is_object(element)
	is_string(element.code)
	element.code != ""
} else := "denied"

message_of(element) := element if {
	is_string(element)
	element != ""
} else := element.message if {
	is_object(element)
	is_string(element.message)
} else := code_of(element) if {
	is_object(element)
} else := concat(" ", ["a rule held with an element of type", type_name(element)])

malformed(name, rule, message) := {"code": "decision_malformed", "rule": rule_name(name, rule), "message": message}

not_a_set := "the rule must be a set: use `contains`"

wrong_element := "an element has not the form of this rule"

malformed_reasons contains malformed(name, "deny", not_a_set) if {
	some name
	value := data.policies[name].deny
	not is_set(value)
}

malformed_reasons contains malformed(name, "allow", not_a_set) if {
	some name
	value := data.policies[name].allow
	not is_set(value)
}

malformed_reasons contains malformed(name, "require_step_up", not_a_set) if {
	some name
	value := data.policies[name].require_step_up
	not is_set(value)
}

malformed_reasons contains malformed(name, "require_hitl", not_a_set) if {
	some name
	value := data.policies[name].require_hitl
	not is_set(value)
}

malformed_reasons contains malformed(name, "throttle", not_a_set) if {
	some name
	value := data.policies[name].throttle
	not is_set(value)
}

malformed_reasons contains malformed(name, "route", not_a_set) if {
	some name
	value := data.policies[name].route
	not is_set(value)
}

malformed_reasons contains malformed(name, "redact", not_a_set) if {
	some name
	value := data.policies[name].redact
	not is_set(value)
}

malformed_reasons contains malformed(name, "allow", wrong_element) if {
	some name
	some element in data.policies[name].allow
	not well_formed_allow(element)
}

malformed_reasons contains malformed(held.package, "require_step_up", wrong_element) if {
	some held in step_ups
	not well_formed_step_up(held.element)
}

malformed_reasons contains malformed(held.package, "require_hitl", wrong_element) if {
	some held in holds
	not well_formed_hold(held.element)
}

malformed_reasons contains malformed(held.package, "throttle", wrong_element) if {
	some held in throttles
	not well_formed_throttle(held.element)
}

malformed_reasons contains malformed(held.package, "route", wrong_element) if {
	some held in routes
	not well_formed_route(held.element)
}

malformed_reasons contains malformed(name, "redact", wrong_element) if {
	some name
	some element in data.policies[name].redact
	not well_formed_redaction(element)
}

# Two different ways to go are no way.
malformed_reasons contains malformed(held.package, "route", "two rules route the call to different targets") if {
	some held in routes
	count(route_terms) > 1
}
