"""Which modules decide (pure) and which act (shell). A new module is declared here, or the architecture test fails.

Package `__init__` files are neither: a name imported through one counts as imported from where it is defined.
"""

from __future__ import annotations

PURE: frozenset[str] = frozenset(
    """
    """.split()
)

SHELL: frozenset[str] = frozenset(
    """
    """.split()
)
