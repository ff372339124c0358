# OpenAI: developers use models, within a length per answer.
package policies.openai

import data.tidegate

longest_answer_tokens := 32768

allow contains {"code": "developer", "message": "developers use models"} if tidegate.has_role("developer")

deny contains {"code": "answer_too_long", "message": "an answer may have at most 32768 tokens"} if {
	tidegate.of_connector("openai")
	some limit in {"max_tokens", "max_completion_tokens"}
	input.args[limit] > longest_answer_tokens
}
