# Slack: developers read and post; what was said stays.
package policies.slack

import data.tidegate

allow contains {"code": "developer", "message": "developers use Slack"} if tidegate.has_role("developer")

deny contains {"code": "no_deletes", "message": "messages are corrected, never deleted"} if {
	tidegate.is_action("slack.message.delete")
}

# A mention of everybody is a person's decision.
require_hitl contains {
	"code": "mentions_everybody",
	"message": "a person must approve a message that calls everybody",
	"chain": "one-approver",
} if {
	input.action.name in {"slack.message.post", "slack.message.update"}
	count(allow) > 0
	some text in texts
	some mention in {"<!channel>", "<!everyone>", "<!here>", "@channel", "@everyone", "@here"}
	contains(text, mention)
}

# In a form, blocks and attachments are JSON text, and an escape in it could hide a mention.
require_hitl contains {
	"code": "hidden_text",
	"message": "a person must approve a message with escaped characters in its blocks",
	"chain": "one-approver",
} if {
	tidegate.of_connector("slack")
	count(allow) > 0
	some field in {"blocks", "attachments"}
	is_string(input.args[field])
	contains(input.args[field], `\u`)
}

# Every text that stands anywhere in the message.
texts contains value if {
	some field in {"text", "markdown_text", "blocks", "attachments"}
	walk(input.args[field], [_, value])
	is_string(value)
}
