# Helpers for policy authors: `import data.tidegate`, then `tidegate.has_role("triage")`.
#
# Each is true or undefined, and undefined whenever a fact is missing. So write denials from what must be true:
# `deny contains "…" if not tidegate.within(window)`, never from what a missing fact would hide.
package tidegate

# --- who asks

has_role(role) if role in input.subject.properties.roles

has_any_role(roles) if {
	some role in roles
	has_role(role)
}

in_environment(environment) if input.subject.properties.environment == environment

# The person is the caller, or the one the caller acts for.
same_person(person) if person == input.subject.id

same_person(person) if person == input.subject.properties.on_behalf_of

# --- what is asked

# Every package's restrictions count for every call, so a policy says whose calls its denials are about.
of_connector(name) if input.resource.properties.connector == name

is_action(name) if input.action.name == name

is_read if input.action.properties.mode == "read"

is_write if input.action.properties.mode == "write"

# --- what people said

# The chain has approved this very call; the gate puts only the approval of the same digest into the input.
approved(chain) if {
	input.context.approval.state == "approved"
	chain in input.context.approval.chains
}

# --- when

# A window is {"weekdays": […], "from_minute": 540, "until_minute": 1020}; `weekdays` holds values of context.clock.weekday.
# Until is not part of it. One that runs over midnight belongs to the day of its clock reading.
within(window) if {
	input.context.clock.weekday in window.weekdays
	between_minutes(window.from_minute, window.until_minute)
}

within_named(name) if within(data.windows[name])

between_minutes(from, until) if {
	from <= until
	input.context.clock.minute_of_day >= from
	input.context.clock.minute_of_day < until
}

between_minutes(from, until) if {
	from > until
	input.context.clock.minute_of_day >= from
}

between_minutes(from, until) if {
	from > until
	input.context.clock.minute_of_day < until
}

# --- how often

# The key of a limit per resource: no two resources, instances or tenants share it.
resource_rate_key := concat("/", [
	input.subject.properties.tenant,
	input.resource.properties.instance,
	input.resource.type,
	input.resource.id,
])

subject_rate_key := concat("/", [
	input.subject.properties.tenant,
	input.resource.properties.instance,
	input.action.name,
	input.subject.id,
])

# --- how much

# Money as an exact count of hundredths: hundredths("12.5") is 1250. Undefined for anything but a plain decimal with at
# most two places and twelve digits before them.
hundredths(amount) := whole_number(amount) * 100 if not contains(amount, ".")

hundredths(amount) := (whole_number(parts[0]) * 100) + (whole_number(parts[1]) * 10) if {
	parts := split(amount, ".")
	count(parts) == 2
	count(parts[1]) == 1
}

hundredths(amount) := (whole_number(parts[0]) * 100) + whole_number(parts[1]) if {
	parts := split(amount, ".")
	count(parts) == 2
	count(parts[1]) == 2
}

at_most(amount, limit) if hundredths(amount) <= hundredths(limit)

digit_values := {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "5": 5, "6": 6, "7": 7, "8": 8, "9": 9}

powers_of_ten := [1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000]

whole_number(digits) := sum(values) if {
	is_string(digits)
	length := count(digits)
	length > 0
	length <= count(powers_of_ten)
	values := [value |
		some position in numbers.range(0, length - 1)
		value := digit_values[substring(digits, position, 1)] * powers_of_ten[(length - 1) - position]
	]
	count(values) == length
}

# --- where

# Four decimal octets without leading zeros, and nothing else: no IPv6, no mapped address, no short form.
is_ipv4(address) if {
	octets := split(address, ".")
	count(octets) == 4
	every octet in octets {
		is_octet(octet)
	}
}

is_octet("0")

is_octet(octet) if {
	not startswith(octet, "0")
	count(octet) <= 3
	whole_number(octet) <= 255
}

# The prefix ends at an octet: "10.", "192.168.".
ipv4_has_prefix(address, prefix) if {
	is_ipv4(address)
	endswith(prefix, ".")
	startswith(address, prefix)
}
