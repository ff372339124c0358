# Anthropic: developers use models, within a length per answer.
package policies.anthropic

import data.tidegate

longest_answer_tokens := 32768

allow contains {"code": "developer", "message": "developers use models"} if tidegate.has_role("developer")

deny contains {"code": "answer_too_long", "message": "an answer may have at most 32768 tokens"} if {
	tidegate.of_connector("anthropic")
	input.args.max_tokens > longest_answer_tokens
}
