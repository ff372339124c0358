# The shared list of the interoperability scenario "Todo": who may do what follows from roles and ownership.
package policies.authzen

allow contains "looks" if {
	input.action.name in {"can_read_user", "can_read_todos"}
	count(person.roles) > 0
}

allow contains "adds" if {
	input.action.name == "can_create_todo"
	"editor" in person.roles
}

allow contains "changes_own" if {
	input.action.name in {"can_update_todo", "can_delete_todo"}
	"editor" in person.roles
	input.resource.properties.ownerID == person.email
}

allow contains "changes_any" if {
	input.action.name == "can_update_todo"
	"evil_genius" in person.roles
}

allow contains "deletes_any" if {
	input.action.name == "can_delete_todo"
	"admin" in person.roles
}

person := people[input.subject.id] if input.subject.type == "user"

people := {
	"CiRmZDA2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {
		"email": "rick@the-citadel.com",
		"roles": ["editor", "admin", "evil_genius"],
	},
	"CiRmZDE2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {
		"email": "morty@the-citadel.com",
		"roles": ["editor"],
	},
	"CiRmZDI2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {
		"email": "summer@the-smiths.com",
		"roles": ["editor"],
	},
	"CiRmZDM2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {
		"email": "beth@the-smiths.com",
		"roles": ["viewer"],
	},
	"CiRmZDQ2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {
		"email": "jerry@the-smiths.com",
		"roles": ["viewer"],
	},
}
