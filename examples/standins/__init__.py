"""Stand-ins: small imitations of real services on loopback, for the quick start and for tests. None is the real thing.

Every answer carries the header ``X-Stand-In``. They check the credential the gate injects as the real service would,
and they keep what they received in memory, so that a test can look at what reached the other side.
"""
