package policies.github_test

import data.policies.github

asked(action, mode, roles) := {
	"subject": {"id": "agent-7", "properties": {"roles": roles}},
	"action": {"name": action, "properties": {"mode": mode}},
	"resource": {"properties": {"connector": "github"}},
}

codes(elements) := {element.code | some element in elements}

test_reads_are_allowed_for_developers if {
	codes(github.allow) == {"reader"} with input as asked("github.repository.read", "read", ["developer"])
}

test_reads_are_not_allowed_without_the_role if {
	count(github.allow) == 0 with input as asked("github.repository.read", "read", ["triage"])
}

test_issues_and_comments_are_written_by_developers if {
	every action in ["github.issue.create", "github.issue.update", "github.comment.create"] {
		codes(github.allow) == {"issue_writer"} with input as asked(action, "write", ["developer"])
	}
}

test_other_writes_are_not_allowed if {
	count(github.allow) == 0 with input as asked("github.pull.merge", "write", ["developer"])
}

test_deletes_are_denied if {
	codes(github.deny) == {"no_deletes"} with input as asked("github.repository.delete", "write", ["developer"])
}
