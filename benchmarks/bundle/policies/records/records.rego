# The measured policy: about thirty rules that look at arguments and at 10 KB of data, as a grown policy would.
package policies.records

import data.tidegate

team := data.owners.teams[input.args.owner]

words contains word if some word in ["drop table", "<script", "BEGIN PRIVATE KEY", "password="]

allow contains {"code": "reader", "message": "triage searches open kinds"} if {
	tidegate.is_action("records.record.search")
	tidegate.has_role("triage")
	not input.args.kind in data.owners.closed_kinds
}

allow contains {"code": "auditor", "message": "auditors search every kind"} if {
	tidegate.is_action("records.record.search")
	tidegate.has_role("auditor")
}

allow contains {"code": "writer", "message": "triage changes records outside production"} if {
	tidegate.is_action("records.record.update")
	tidegate.has_role("triage")
	not tidegate.in_environment("prod")
}

allow contains {"code": "operator", "message": "operators change records"} if {
	tidegate.is_action("records.record.update")
	tidegate.has_role("operator")
}

deny contains {"code": "closed_kind", "message": "records of this kind are not changed"} if {
	tidegate.is_write
	input.args.kind in data.owners.closed_kinds
}

deny contains {"code": "frozen", "message": "the record is frozen"} if {
	tidegate.is_write
	input.args.id in data.owners.frozen
}

deny contains {"code": "foreign_kind", "message": "the team does not own this kind"} if {
	input.args.owner
	not input.args.kind in team.kinds
}

deny contains {"code": "unknown_team", "message": "there is no such team"} if {
	input.args.owner
	not data.owners.teams[input.args.owner]
}

deny contains {"code": "over_limit", "message": "the amount is above the team's limit"} if {
	input.args.amount > team.limit
}

deny contains {"code": "amount_without_owner", "message": "an amount needs an owner"} if {
	input.args.amount > 0
	not input.args.owner
}

deny contains {"code": "words", "message": "the text holds what no record should"} if {
	some word in words
	contains(input.args.text, word)
}

deny contains {"code": "long_text", "message": "the text is too long for a search"} if {
	tidegate.is_read
	count(input.args.text) > 200
}

deny contains {"code": "wildcard", "message": "a search names something"} if {
	tidegate.is_read
	input.args.text in {"", "*", "%"}
}

deny contains {"code": "service_account", "message": "service accounts do not write here"} if {
	tidegate.is_write
	startswith(input.subject.id, "svc-")
}

deny contains {"code": "top_priority", "message": "priority 1 is set by operators"} if {
	input.args.priority == 1
	not tidegate.has_role("operator")
}

deny contains {"code": "reopened", "message": "closed is final for triage"} if {
	input.args.state == "open"
	input.args.priority > 3
}

deny contains {"code": "large_page", "message": "more than fifty at a time is for auditors"} if {
	input.args.limit > 50
	not tidegate.has_role("auditor")
}

deny contains {"code": "night", "message": "production rests between midnight and four"} if {
	tidegate.in_environment("prod")
	tidegate.is_write
	input.context.clock.minute_of_day < 240
}

deny contains {"code": "region", "message": "contracts in this region belong to operators"} if {
	input.args.kind == "contract"
	team.region == "ap"
	not tidegate.has_role("operator")
}

deny contains {"code": "delegated_write", "message": "nobody writes here for somebody else"} if {
	tidegate.is_write
	input.subject.properties.on_behalf_of
}

require_hitl contains {"code": "prod_write", "message": "a person approves writes to production", "chain": "one-approver"} if {
	tidegate.is_write
	tidegate.in_environment("prod")
	count(allow) > 0
}

require_hitl contains {"code": "large_amount", "message": "a person approves large amounts", "chain": "one-approver"} if {
	input.args.amount > 50000
	count(allow) > 0
}

require_hitl contains {"code": "contract", "message": "a person approves contracts", "chain": "one-approver"} if {
	tidegate.is_write
	input.args.kind == "contract"
	count(allow) > 0
}
