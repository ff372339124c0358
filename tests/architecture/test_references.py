"""What text and code refer to is in the repository: security rules, files that documents name, no page from elsewhere."""

from __future__ import annotations

import re

from tests.architecture.source_tree import PACKAGES, ROOT

RULES = ROOT / "docs" / "security-rules.md"
_RULE = re.compile(r"\bsecurity rules? (\d+)")
_PAGE = re.compile(r"\bpage (\d+)(?:['’]s|,? rule|\b)")
_NAMED = re.compile(r"`((?:tests|docs|examples|tools|rego|bundles|gateway|pdp|cli)/[\w./-]+)`")


def texts() -> dict[str, str]:
    """Every source and document of the project by its name."""
    places = [ROOT.joinpath(package) for package in (*PACKAGES, "tests", "examples", "benchmarks", "tools", "docs")]
    files = [file for place in places for kind in ("*.py", "*.md", "*.rego", "*.yaml") for file in place.rglob(kind)]
    files = [file for file in files if "node_modules" not in file.parts] + [ROOT / "README.md"]
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


def test_every_security_rule_that_is_referred_to_is_written_down() -> None:
    written = set(re.findall(r"^(\d+)\. ", RULES.read_text(encoding="utf-8"), re.MULTILINE))
    unknown = {name: missing for name, text in texts().items() if (missing := set(_RULE.findall(text)) - written)}
    assert written and unknown == {}


def test_no_text_refers_to_a_page_that_is_not_here() -> None:
    exempt = {"tests/rego/test_connectors.py", "tests/architecture/test_references.py"}
    assert [name for name, text in texts().items() if name not in exempt and _PAGE.search(text)] == []


def test_files_that_the_security_rules_name_exist() -> None:
    named = _NAMED.findall(RULES.read_text(encoding="utf-8"))
    assert named and [name for name in named if not (ROOT / name).exists()] == []
