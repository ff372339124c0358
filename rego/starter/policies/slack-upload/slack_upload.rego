# Slack's upload host: it is reached only with a ticket that the gate gave out for one upload.
package policies["slack-upload"]

import data.tidegate

allow contains {"code": "developer", "message": "developers upload files to Slack"} if tidegate.has_role("developer")
