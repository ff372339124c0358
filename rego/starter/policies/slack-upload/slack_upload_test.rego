package policies.slack_upload_test

test_uploads_are_allowed_for_developers if {
	elements := data.policies["slack-upload"].allow with input as {"subject": {"properties": {"roles": ["developer"]}}}
	{element.code | some element in elements} == {"developer"}
}

test_uploads_are_not_allowed_without_the_role if {
	elements := data.policies["slack-upload"].allow with input as {"subject": {"properties": {"roles": ["triage"]}}}
	count(elements) == 0
}
