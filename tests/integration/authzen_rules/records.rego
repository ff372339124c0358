# The records of the certification scenario of the Authorization API 1.0.
package policies.authzen

allow contains "reads_records" if {
	input.action.name == "read"
	input.resource.type == "record"
	input.subject.id in {"alice", "bob"}
}

allow contains "writes_live_records" if {
	input.action.name == "write"
	input.resource.type == "record"
	input.subject.id == "alice"
	not archived
}

allow contains "keeps_the_archive" if {
	input.action.name == "write"
	input.resource.type == "record"
	input.subject.properties.role == "admin"
	archived
}

allow contains "deletes_softly" if {
	input.action.name == "delete"
	input.resource.type == "record"
	input.subject.id == "alice"
	input.action.properties.soft == true
}

# Asked about by the tests of what a PEP is told when a person must agree.
require_hitl contains {"code": "shred", "message": "shredding needs a person", "chain": "one-approver"} if {
	input.action.name == "shred"
}

archived if input.resource.properties.status == "archived"
