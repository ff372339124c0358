"""The embedded engine: OPA's compiled policies, run in process in a sandbox."""
