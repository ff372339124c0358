package policies.slack_test

import data.policies.slack

asked(action, roles, args) := {
	"subject": {"id": "agent-7", "properties": {"roles": roles}},
	"action": {"name": action, "properties": {"mode": "write"}},
	"resource": {"properties": {"connector": "slack"}},
	"args": args,
}

codes(elements) := {element.code | some element in elements}

test_messages_are_allowed_for_developers if {
	asking := asked("slack.message.post", ["developer"], {"channel": "C1", "text": "done"})
	codes(slack.allow) == {"developer"} with input as asking
	count(slack.require_hitl) == 0 with input as asking
}

test_messages_are_not_allowed_without_the_role if {
	count(slack.allow) == 0 with input as asked("slack.message.post", ["triage"], {"channel": "C1", "text": "done"})
}

test_calling_everybody_is_held_wherever_it_stands if {
	every args in [
		{"text": "<!channel> look"},
		{"text": "@here"},
		{"markdown_text": "@everyone"},
		{"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "hey <!here>"}}]},
		{"blocks": `[{"type":"section","text":"<!everyone>"}]`},
		{"attachments": [{"fallback": "@channel"}]},
	] {
		codes(slack.require_hitl) == {"mentions_everybody"} with input as asked("slack.message.post", ["developer"], args)
	}
}

test_escapes_in_form_blocks_are_held if {
	args := {"blocks": `[{"text":"\u003c!here>"}]`}
	codes(slack.require_hitl) == {"hidden_text"} with input as asked("slack.message.post", ["developer"], args)
}

test_strangers_are_not_even_held if {
	count(slack.require_hitl) == 0 with input as asked("slack.message.post", ["guest"], {"text": "@here"})
}

test_deletes_are_denied if {
	codes(slack.deny) == {"no_deletes"} with input as asked("slack.message.delete", ["developer"], {"channel": "C1"})
}
