package tidegate_helpers_test

import data.tidegate

asked := {
	"subject": {
		"id": "agent-7",
		"properties": {"tenant": "acme", "roles": ["triage", "buyer"], "environment": "prod", "on_behalf_of": "maria"},
	},
	"action": {"name": "crm.lead.update", "properties": {"mode": "write"}},
	"resource": {"type": "lead", "id": "L1", "properties": {"connector": "crm", "instance": "crm-eu"}},
	"context": {"clock": {"weekday": "Monday", "minute_of_day": 600}},
}

at(minute) := {"context": {"clock": {"weekday": "Monday", "minute_of_day": minute}}}

test_roles_are_found if {
	tidegate.has_role("buyer") with input as asked
	tidegate.has_any_role({"seller", "buyer"}) with input as asked
}

test_missing_roles_are_not_found if {
	not tidegate.has_role("seller") with input as asked
	not tidegate.has_any_role({"seller"}) with input as asked
	not tidegate.has_role("triage") with input as {}
}

test_the_call_is_described if {
	tidegate.in_environment("prod") with input as asked
	not tidegate.in_environment("test") with input as asked
	tidegate.of_connector("crm") with input as asked
	not tidegate.of_connector("mail") with input as asked
	tidegate.is_action("crm.lead.update") with input as asked
	not tidegate.is_action("crm.lead") with input as asked
	tidegate.is_write with input as asked
	not tidegate.is_read with input as asked
	tidegate.is_read with input as {"action": {"properties": {"mode": "read"}}}
}

test_the_same_person_is_the_caller_or_who_stands_behind if {
	tidegate.same_person("agent-7") with input as asked
	tidegate.same_person("maria") with input as asked
	not tidegate.same_person("Maria") with input as asked
	not tidegate.same_person("ada") with input as asked
}

test_approved_chains_are_known if {
	said := {"context": {"approval": {"state": "approved", "chains": ["a"]}}}
	tidegate.approved("a") with input as said
	not tidegate.approved("b") with input as said
	not tidegate.approved("a") with input as {"context": {"approval": {"state": "pending", "chains": ["a"]}}}
	not tidegate.approved("a") with input as asked
}

office := {"weekdays": ["Monday"], "from_minute": 540, "until_minute": 1020}

night := {"weekdays": ["Monday"], "from_minute": 1320, "until_minute": 360}

test_windows_hold_from_their_start_until_before_their_end if {
	every minute in [540, 600, 1019] {
		tidegate.within(office) with input as at(minute)
	}
	every minute in [0, 539, 1020, 1439] {
		not tidegate.within(office) with input as at(minute)
	}
}

test_windows_over_midnight_hold_on_both_sides if {
	every minute in [1320, 1439, 0, 359] {
		tidegate.within(night) with input as at(minute)
	}
	every minute in [360, 600, 1319] {
		not tidegate.within(night) with input as at(minute)
	}
}

test_windows_do_not_hold_on_other_days_or_without_a_clock if {
	not tidegate.within(office) with input as {"context": {"clock": {"weekday": "Sunday", "minute_of_day": 600}}}
	not tidegate.within(office) with input as {}
}

test_named_windows_come_from_data if {
	tidegate.within_named("office") with input as at(600) with data.windows as {"office": office}
	not tidegate.within_named("other") with input as at(600) with data.windows as {"office": office}
}

test_rate_keys_name_tenant_and_instance if {
	tidegate.resource_rate_key == "acme/crm-eu/lead/L1" with input as asked
	tidegate.subject_rate_key == "acme/crm-eu/crm.lead.update/agent-7" with input as asked
}

test_amounts_are_exact if {
	every amount, wanted in {
		"0": 0,
		"12": 1200,
		"12.5": 1250,
		"12.05": 1205,
		"0.30": 30,
		"007.10": 710,
		"999999999999.99": 99999999999999,
	} {
		tidegate.hundredths(amount) == wanted
	}
}

test_amounts_of_another_form_are_undefined if {
	every amount in [
		"",
		".",
		".5",
		"5.",
		"1.234",
		"1.2.3",
		"-1",
		"+1",
		"1e3",
		" 1",
		"1,5",
		"1000000000000",
		"1000000000000.00",
		"٣",
	] {
		not tidegate.hundredths(amount)
	}
}

test_numbers_are_no_digits if {
	not tidegate.whole_number(12)
}

test_amounts_compare if {
	tidegate.at_most("99.99", "100")
	tidegate.at_most("100.00", "100")
	not tidegate.at_most("100.01", "100")
	not tidegate.at_most("much", "100")
}

test_ipv4_addresses_are_four_plain_octets if {
	every address in ["0.0.0.0", "10.0.0.1", "255.255.255.255", "169.254.169.254"] {
		tidegate.is_ipv4(address)
	}
	every address in [
		"",
		"10.0.0",
		"10.0.0.0.1",
		"256.0.0.1",
		"10.0.0.01",
		"010.0.0.1",
		"00.0.0.0",
		"0x0a.0.0.1",
		"10.0.0.1 ",
		"10..0.1",
		"::ffff:10.0.0.1",
		"1000.0.0.1",
		"a.b.c.d",
	] {
		not tidegate.is_ipv4(address)
	}
}

test_prefixes_end_at_an_octet if {
	tidegate.ipv4_has_prefix("10.1.2.3", "10.")
	tidegate.ipv4_has_prefix("192.168.7.9", "192.168.")
	not tidegate.ipv4_has_prefix("100.1.2.3", "10.")
	not tidegate.ipv4_has_prefix("10.1.2.3", "10")
	not tidegate.ipv4_has_prefix("10.1.2", "10.")
}
