# What held: the elements of every package's rules, taken apart into reasons and terms.
#
# A rule that is no set, and an element that is not of its rule's form, is a refusal with the code decision_malformed:
# a policy that was written wrongly must not count as one that said nothing.
package tidegate

# What each package says under each name, gathered once: this is all of the policies that is ever asked.
denials[name] := data.policies[name].deny

# Only the packages whose grants count are asked for them; the others' would be work for nothing.
allowances["common"] := data.policies.common.allow

allowances[name] := elements if {
	name := input.resource.properties.connector
	elements := data.policies[name].allow
}

step_up_demands[name] := data.policies[name].require_step_up

hold_demands[name] := data.policies[name].require_hitl

throttle_demands[name] := data.policies[name].throttle

route_demands[name] := data.policies[name].route

redaction_demands[name] := data.policies[name].redact

# Any element of any type in any package's `deny` denies.
deny_reasons contains {"code": code_of(element), "rule": rule_name(name, "deny"), "message": message_of(element)} if {
	some name, elements in denials
	some element in elements
}

allow_reasons contains {"code": code_of(element), "rule": rule_name(name, "allow"), "message": message_of(element)} if {
	some name, elements in allowances
	some element in elements
}

step_ups contains {"package": name, "element": element} if {
	some name, elements in step_up_demands
	some element in elements
}

holds contains {"package": name, "element": element} if {
	some name, elements in hold_demands
	some element in elements
}

throttles contains {"package": name, "element": element} if {
	some name, elements in throttle_demands
	some element in elements
}

routes contains {"package": name, "element": element} if {
	some name, elements in route_demands
	some element in elements
}

redactions contains element if {
	some elements in redaction_demands
	some element in elements
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
	some name, value in denials
	not is_set(value)
}

malformed_reasons contains malformed(name, "allow", not_a_set) if {
	some name, value in allowances
	not is_set(value)
}

malformed_reasons contains malformed(name, "require_step_up", not_a_set) if {
	some name, value in step_up_demands
	not is_set(value)
}

malformed_reasons contains malformed(name, "require_hitl", not_a_set) if {
	some name, value in hold_demands
	not is_set(value)
}

malformed_reasons contains malformed(name, "throttle", not_a_set) if {
	some name, value in throttle_demands
	not is_set(value)
}

malformed_reasons contains malformed(name, "route", not_a_set) if {
	some name, value in route_demands
	not is_set(value)
}

malformed_reasons contains malformed(name, "redact", not_a_set) if {
	some name, value in redaction_demands
	not is_set(value)
}

malformed_reasons contains malformed(name, "allow", wrong_element) if {
	some name, elements in allowances
	some element in elements
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
	some name, elements in redaction_demands
	some element in elements
	not well_formed_redaction(element)
}

# Two different ways to go are no way.
malformed_reasons contains malformed(held.package, "route", "two rules route the call to different targets") if {
	some held in routes
	count(route_terms) > 1
}
