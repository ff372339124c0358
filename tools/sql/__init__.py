"""What the gate's SQL is written from."""
