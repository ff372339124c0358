# Obligations: the terms of everything that held, combined.
package tidegate

default_decide_within_seconds := 86400

default_use_within_seconds := 900

# A denied call has no terms; the reasons say why it is denied.
default obligations := {}

obligations := obligation if {
	permitted
	has_terms
}

# Most calls that pass have no terms: then no single one is looked for.
has_terms if count(step_ups) > 0

has_terms if count(open_holds) > 0

has_terms if count(throttles) > 0

has_terms if count(routes) > 0

has_terms if count(redactions) > 0

has_terms if count(cache_demands) > 0

obligation["step_up"] := {
	"acr_values": sort({value | some held in step_ups; some value in held.element.acr_values}),
	"max_age_seconds": min({held.element.max_age_seconds | some held in step_ups}),
} if {
	count(step_ups) > 0
}

obligation["approval"] := {
	"chains": sort({hold.element.chain | some hold in open_holds}),
	"decide_within_seconds": min({seconds |
		some hold in open_holds
		seconds := object.get(hold.element, "decide_within_seconds", default_decide_within_seconds)
	}),
	"use_within_seconds": min({seconds |
		some hold in open_holds
		seconds := object.get(hold.element, "use_within_seconds", default_use_within_seconds)
	}),
	"on_approval": on_approval,
} if {
	count(open_holds) > 0
}

obligation["throttle"] := sort({terms |
	some held in throttles
	terms := object.remove(held.element, ["code", "message"])
}) if {
	count(throttles) > 0
}

obligation["route"] := terms if some terms in route_terms

obligation["redact"] := pointers if {
	pointers := sort({element.args | some element in redactions})
	count(pointers) > 0
}

obligation["response"] := {"redact": paths} if {
	paths := sort({element.response | some element in redactions})
	count(paths) > 0
}

# How long a permission may be given again to an equal question: the shortest that is asked for, and only where every
# element has its form, so that a mistake keeps nothing.
obligation["cache_seconds"] := min(cache_terms) if {
	effect == "ALLOW"
	count(cache_terms) > 0
	every element in cache_demands {
		well_formed_cache(element)
	}
}

cache_terms := {element.seconds | some element in cache_demands}

cache_demands contains element if some element in data.policies.common.cache

cache_demands contains element if some element in data.policies[input.resource.properties.connector].cache

route_terms contains {"target": held.element.target, "fallback": object.get(held.element, "fallback", [])} if {
	some held in routes
}

# The gate sends by itself only what every holding rule lets it send.
default on_approval := "grant"

on_approval := "dispatch" if {
	every hold in open_holds {
		object.get(hold.element, "on_approval", "grant") == "dispatch"
	}
}
