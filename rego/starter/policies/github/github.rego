# GitHub: developers read repositories and work on issues.
package policies.github

import data.tidegate

allow contains {"code": "reader", "message": "developers read repositories"} if {
	tidegate.is_read
	tidegate.has_role("developer")
}

allow contains {"code": "issue_writer", "message": "developers write issues and comments"} if {
	input.action.name in {"github.issue.create", "github.issue.update", "github.comment.create"}
	tidegate.has_role("developer")
}

deny contains {"code": "no_deletes", "message": "repositories are archived, never deleted"} if {
	tidegate.of_connector("github")
	endswith(input.action.name, ".delete")
}
