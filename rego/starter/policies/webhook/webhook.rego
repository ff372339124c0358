# Webhooks: developers send events; to production only after a person has looked.
package policies.webhook

import data.tidegate

allow contains {"code": "developer", "message": "developers send events"} if tidegate.has_role("developer")

require_hitl contains {
	"code": "prod_event",
	"message": "a person must approve events sent from production",
	"chain": "one-approver",
} if {
	tidegate.of_connector("webhook")
	tidegate.in_environment("prod")
	count(allow) > 0
}
