"""The gate's own operations under /v1, one module per noun; each is an action that the bundle decides."""
