"""One question, one decision: the input and decision documents, the engines that answer, and the policy in force."""
