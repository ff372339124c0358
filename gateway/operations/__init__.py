"""What operators see: metrics, health, what is enforced, one log line per call."""
