"""The hash-chained log: record format (`record`), group commit (`writer`), and checking it again (`verify`)."""
