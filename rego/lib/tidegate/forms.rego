# The forms: what an element of each rule may look like. Closed: a key that is not known makes the element malformed,
# so a misspelt `chian` is refused and not ignored.
package tidegate

# A year and a day: no duration is longer.
longest_seconds := 31622400

largest_limit := 1000000000

well_formed_allow(element) if {
	is_string(element)
	element != ""
}

well_formed_allow(element) if {
	gives_reason(element)
	only_keys(element, {"code", "message"})
}

well_formed_step_up(element) if {
	gives_reason(element)
	only_keys(element, {"code", "message", "acr_values", "max_age_seconds"})
	texts(element.acr_values)
	count(element.acr_values) > 0
	whole_between(element.max_age_seconds, 0, longest_seconds)
}

well_formed_hold(element) if {
	gives_reason(element)
	only_keys(element, {"code", "message", "chain", "decide_within_seconds", "use_within_seconds", "on_approval"})
	text(element.chain)
	whole_between(object.get(element, "decide_within_seconds", 1), 1, longest_seconds)
	whole_between(object.get(element, "use_within_seconds", 1), 1, longest_seconds)
	object.get(element, "on_approval", "grant") in {"grant", "dispatch"}
}

well_formed_throttle(element) if {
	gives_reason(element)
	only_keys(element, {"code", "message", "key", "limit", "window_seconds"})
	text(element.key)
	whole_between(element.limit, 0, largest_limit)
	whole_between(element.window_seconds, 1, longest_seconds)
}

well_formed_route(element) if {
	gives_reason(element)
	only_keys(element, {"code", "message", "target", "fallback"})
	text(element.target)
	fallback := object.get(element, "fallback", [])
	is_array(fallback)
	texts(fallback)
}

well_formed_redaction(element) if {
	is_object(element)
	object.keys(element) == {"args"}
	text(element.args)
	startswith(element.args, "/")
}

well_formed_redaction(element) if {
	is_object(element)
	object.keys(element) == {"response"}
	text(element.response)
	startswith(element.response, "$")
}

well_formed_cache(element) if {
	is_object(element)
	object.keys(element) == {"seconds"}
	whole_between(element.seconds, 1, 3600)
}

gives_reason(element) if {
	is_object(element)
	text(element.code)
	is_string(object.get(element, "message", ""))
}

only_keys(element, known) if count(object.keys(element) - known) == 0

text(value) if {
	is_string(value)
	value != ""
}

texts(values) if {
	is_array(values)
	every value in values {
		text(value)
	}
}

texts(values) if {
	is_set(values)
	every value in values {
		text(value)
	}
}

whole_between(value, lowest, highest) if {
	is_number(value)
	round(value) == value
	value >= lowest
	value <= highest
}
