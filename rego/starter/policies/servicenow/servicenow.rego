# ServiceNow: who may read and change records, and what a person must see first.
package policies.servicenow

import data.tidegate

writers := {"triage", "operator"}

allow contains {"code": "reader", "message": "triage and operators read records"} if {
	tidegate.is_read
	tidegate.has_any_role(writers)
}

allow contains {"code": "incident_writer", "message": "triage and operators create and change incidents"} if {
	input.action.name in {
		"servicenow.incident.create",
		"servicenow.incident.update",
		"servicenow.incident.replace",
	}
	tidegate.has_any_role(writers)
}

allow contains {"code": "change_writer", "message": "operators change change requests"} if {
	tidegate.is_action("servicenow.change_request.update")
	tidegate.has_role("operator")
}

require_hitl contains {
	"code": "prod_write",
	"message": "a person must approve writes to production",
	"chain": "one-approver",
} if {
	tidegate.of_connector("servicenow")
	tidegate.in_environment("prod")
	tidegate.is_write
	count(allow) > 0
}

deny contains {"code": "no_deletes", "message": "records are closed, never deleted"} if {
	tidegate.of_connector("servicenow")
	endswith(input.action.name, ".delete")
}
