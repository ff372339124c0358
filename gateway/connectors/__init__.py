"""What the gate knows about the services behind it: classification, arguments, rendering, rewriting, credentials."""
