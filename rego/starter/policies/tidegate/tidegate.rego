# The gate itself: its operations are actions like any other, granted by role and by nothing else.
package policies.tidegate

allow contains {"code": "role", "message": concat(" ", ["the role", role, "grants this operation"])} if {
	some role in input.subject.properties.roles
	input.action.name in operations[role]
}

# Asking a person for what policy holds, seeing how that went, and taking it back.
requester := {
	"tidegate.access_request.create",
	"tidegate.access_request.show",
	"tidegate.access_request.cancel",
}

# Whoever may call may ask whether they may, see what became of their calls and take back what they asked for.
caller := requester | {
	"tidegate.access.evaluate",
	"tidegate.call.create",
	"tidegate.call.read",
	"tidegate.approval.read",
	"tidegate.approval.withdraw",
	"tidegate.enforcement.read",
}

operations := {
	"triage": caller,
	"developer": caller,
	"approver": (caller | {"tidegate.approval.vote"}),
	"operator": (caller | {
		"tidegate.approval.vote",
		"tidegate.switch.read",
		"tidegate.switch.set",
		"tidegate.switch.clear",
		"tidegate.simulate.run",
		"tidegate.shadow.read",
	}),
	"auditor": {
		"tidegate.call.read",
		"tidegate.approval.read",
		"tidegate.enforcement.read",
		"tidegate.switch.read",
		"tidegate.simulate.run",
		"tidegate.simulate.subject",
		"tidegate.simulate.rules",
		"tidegate.shadow.read",
		"tidegate.replay.run",
	},
	"enforcer": (requester | {
		"tidegate.access.evaluate",
		"tidegate.access.subject",
	}),
	"collector": {
		"tidegate.opa.log",
		"tidegate.opa.status",
	},
	"publisher": {
		"tidegate.enforcement.read",
		"tidegate.simulate.run",
		"tidegate.simulate.subject",
		"tidegate.simulate.rules",
		"tidegate.shadow.read",
		"tidegate.replay.run",
	},
}
