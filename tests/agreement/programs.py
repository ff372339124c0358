"""A generator of policies and inputs inside the profile: the same seed gives the same texts.

Every expression is drawn by its type, so that OPA's checker takes the policy and the engines have something to decide.
Calculating takes whole numbers alone, because the profile refuses any other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DEPTH_MAX = 3
TEXTS = ("", "a", "ab", "b,c", "a.b.c", "Triage", "prod", "é", "x y", "aa-bb", "0", "ß\u2028")
KEYS = ("a", "b", "role", "é", "long_key", "")
NUMBERS = ("0", "1", "2", "3", "7", "-1", "-4", "0.5", "1.5", "-2.25", "100", "4096")
WHOLE_NUMBERS = ("0", "1", "2", "3", "7", "-4", "100")
ROUNDING = ("round",)
PATTERNS = ("^a", "[a-c]+", "b$", "^[A-Z][a-z]*$", "a|b", "^$", "x.y", "a{2}", "[^a]")

DATA: dict[str, Any] = {
    "limits": {"small": 2, "large": 50, "half": 0.5, "none": None},
    "names": ["a", "prod", "é", ""],
    "rows": [{"name": "a", "n": 1, "tags": ["x", "y"]}, {"name": "ab", "n": -4, "tags": []}, {"name": "a", "n": 7.5}],
    "table": {"a": ["ab", "b"], "b": [], "role": ["Triage"]},
    "flags": {"on": True, "off": False},
}


@dataclass(frozen=True, slots=True)
class Policy:
    """One package of rules; ``rules`` may be left out one by one when a difference is made smaller."""

    name: str
    rules: tuple[str, ...]

    @property
    def text(self) -> str:
        """The package as Rego."""
        return f"package gen.{self.name}\n\n" + "\n\n".join(self.rules) + "\n"


def program(policies: list[Policy]) -> dict[str, bytes]:
    """The files of one build: every package, and the entry point that gathers what each answers."""
    files = {f"gen/{policy.name}.rego": policy.text.encode() for policy in policies}
    pairs = "\n\n".join(f'answers["{policy.name}"] := data.gen.{policy.name}.out' for policy in policies)
    files["lib/tidegate/decision.rego"] = f"package tidegate\n\n{pairs}\n\ndecision := answers\n".encode()
    return files


def draw_policies(seed: int, count: int) -> list[Policy]:
    """So many policies."""
    return [_Author(random.Random(f"{seed}/{number}"), f"p{number:02d}").policy() for number in range(count)]


def draw_inputs(seed: int, count: int) -> list[dict[str, Any]]:
    """So many input documents; members are missing, or of another type, now and then."""
    return [_input(random.Random(f"input {seed}/{number}")) for number in range(count)]


def _input(draw: random.Random) -> dict[str, Any]:
    document: dict[str, Any] = {
        "n": draw.choice((0, 1, 2, 3, 7, -1, 50)),
        "m": draw.choice((0, 0.5, 1.5, -2.25, 100, 2.0)),
        "s": draw.choice(TEXTS),
        "t": draw.choice(TEXTS),
        "b": draw.random() < 0.5,
        "xs": [draw.choice((0, 1, 2, 3, -4, 0.5, 7)) for _ in range(draw.randrange(5))],
        "ss": [draw.choice(TEXTS) for _ in range(draw.randrange(5))],
        "o": {key: draw.choice((0, 1, 2, 0.5, 7)) for key in KEYS if draw.random() < 0.5},
        "rows": [
            {"name": draw.choice(TEXTS), "n": draw.choice((1, 2, -4)), "tags": draw.sample(TEXTS, draw.randrange(3))}
            for _ in range(draw.randrange(4))
        ],
    }
    for name in list(document):
        odd = draw.random()
        if odd < 0.05:
            del document[name]
        elif odd < 0.12:
            document[name] = draw.choice((None, True, 3, "a", [], ["a", 1], {}, {"a": 1}, [[1], [2]]))
    return document


class _Author:
    """Draws one policy. ``_bound`` holds the variables that a body has bound so far, by type."""

    def __init__(self, draw: random.Random, name: str) -> None:
        self._draw = draw
        self._name = name
        self._bound: list[tuple[str, str]] = []
        self._fresh = 0
        self._by_type: dict[str, list[Callable[[int], str]]] = {
            "num": [self._number, self._counted, self._arithmetic, self._rounded, self._aggregate, self._looked_up],
            "str": [self._text, self._cut, self._joined, self._template, self._encoded, self._replaced],
            "bool": [self._compared, self._text_test, self._membership, self._type_test, self._pattern, self._set_test],
            "nums": [self._numbers, self._number_list, self._sorted_numbers, self._collected_numbers],
            "strs": [self._texts, self._split, self._sorted_texts, self._collected_texts, self._array_calls],
            "set": [self._set_literal, self._set_operation, self._set_collected, self._key_set],
            "obj": [self._object, self._object_call, self._object_collected],
        }
        for kind, maker in _HOST_MAKERS.items():
            self._by_type[kind].append(lambda depth, maker=maker: maker(self._of, self._pick, depth))

    def policy(self) -> Policy:
        """The package: helpers first, then what it answers."""
        rules = [self._function(), self._levels(), *self._partial_set(), self._partial_object()]
        for number in range(self._draw.randrange(3, 7)):
            kind = self._draw.choice(("num", "str", "bool", "nums", "strs", "set", "obj"))
            self._bound = []
            body, value = self._body(), self._of(kind, DEPTH_MAX)
            value = f"sort({value})" if kind == "set" else value
            # A set of all values, because a body that holds in several ways would give the rule several.
            rules.append(f'out["set_{number}"] := {{value |\n{body}\n\tvalue := {value}\n}}')
        rules += ['out["level"] := level', 'out["set_seen"] := seen', 'out["tab"] := tab', 'out["f"] := f(input.n)']
        return Policy(self._name, tuple(rules))

    # --- rules ----------------------------------------------------------------------------------------------------
    def _function(self) -> str:
        self._bound = [("x", "num")]
        first = f"f(x) := {self._of('num', 2)} if {self._of('bool', 2)}"
        return f"{first} else := {self._of('num', 1)} if x > {self._pick(NUMBERS)} else := -1"

    def _levels(self) -> str:
        self._bound = []
        first = self._body()
        self._bound = []
        second = self._body()
        return f'default level := "low"\n\nlevel := "high" if {{\n{first}\n}} else := "mid" if {{\n{second}\n}}'

    def _partial_set(self) -> list[str]:
        rules = []
        for _ in range(self._draw.randrange(1, 4)):
            self._bound = []
            body = self._body()
            rules.append(f"seen contains value if {{\n{body}\n\tvalue := {self._of(self._pick(('str', 'num')), 2)}\n}}")
        return rules

    def _partial_object(self) -> str:
        self._bound = [("k", "str"), ("v", "num")]
        return f"tab[k] := value if {{\n\tsome k, v in input.o\n\tis_number(v)\n\tvalue := {self._of('num', 2)}\n}}"

    def _body(self) -> str:
        lines = [self._statement() for _ in range(self._draw.randrange(1, 4))]
        return "\n".join(f"\t{line}" for line in lines)

    def _statement(self) -> str:
        kind = self._draw.randrange(8)
        if kind == 0:
            return f"not {self._of('bool', 1)}"
        if kind == 1:
            return self._iteration()
        if kind == 2:
            return self._every()
        if kind == 3:
            type_ = self._pick(("num", "str", "strs"))
            value, name = self._of(type_, 2), self._new(type_)
            return f"{name} := {value}"
        if kind == 4:
            return f"{self._of('str', 1)} in {self._of('strs', 1)}"
        if kind == 5:
            return self._rows()
        return self._of("bool", 2)

    def _iteration(self) -> str:
        type_, many = self._pick((("str", "strs"), ("num", "nums"), ("str", "data.names")))
        domain = many if many.startswith("data") else self._of(many, 1)
        return f"some {self._new(type_)} in {domain}"

    def _rows(self) -> str:
        row = f"row{self._fresh}"
        self._fresh += 1
        name, number = self._new("str"), self._new("num")
        source = self._pick(("data.rows", "input.rows"))
        return f"some {row} in {source}\n\t{name} := {row}.name\n\t{number} := {row}.n"

    def _every(self) -> str:
        name = f"e{self._fresh}"
        self._fresh += 1
        domain = self._of("nums", 1)
        kept, self._bound = self._bound, [*self._bound, (name, "num")]
        test = self._of("bool", 1)
        self._bound = kept
        return f"every {name} in {domain} {{ {test}; {name} < {self._pick(NUMBERS)} }}"

    # --- expressions ----------------------------------------------------------------------------------------------
    def _of(self, type_: str, depth: int) -> str:
        """An expression of this type; at the end of the depth one of the first kind, which is a leaf."""
        bound = [name for name, bound_type in self._bound if bound_type == type_]
        if bound and self._draw.random() < 0.4:
            return str(self._pick(bound))
        makers = self._by_type[type_]
        return (makers[0] if depth <= 0 else self._pick(makers))(depth - 1)

    def _new(self, type_: str) -> str:
        name = f"v{self._fresh}"
        self._fresh += 1
        self._bound.append((name, type_))
        return name

    def _pick(self, options: Any) -> Any:
        return self._draw.choice(options)

    def _number(self, depth: int) -> str:
        return str(self._pick((*NUMBERS, "input.n", "input.m", "data.limits.small", "data.limits.half", "input.o.a")))

    def _counted(self, depth: int) -> str:
        return f"count({self._of(self._pick(('strs', 'nums', 'set', 'obj', 'str')), depth)})"

    def _arithmetic(self, depth: int) -> str:
        rounding = self._pick(ROUNDING)
        left, right = f"{rounding}({self._of('num', depth)})", f"{rounding}({self._of('num', depth)})"
        operator = self._pick(("+", "-", "*", "+", "-", "/", "%"))
        if operator == "/":  # nothing divided by nothing ends a decision in Wasm: it fails closed, and is no difference
            right = self._pick(("2", "3", "-4", f"(count({self._of('nums', 0)}) + 1)"))
        elif operator in "*%":
            right = self._pick(WHOLE_NUMBERS)
        calculated = f"({left} {operator} {right})"
        return f"{self._pick(ROUNDING)}({calculated})" if operator == "/" else calculated

    def _rounded(self, depth: int) -> str:
        return f"{self._pick((*ROUNDING, 'abs'))}({self._of('num', depth)})"

    def _aggregate(self, depth: int) -> str:
        call = self._pick(("sum", "max", "min", "product"))
        if call in ("max", "min"):
            return f"{call}({self._of('nums', depth)})"
        name = f"a{self._fresh}"
        self._fresh += 1
        return f"{call}([{self._pick(ROUNDING)}({name}) | some {name} in {self._of('nums', min(depth, 1))}])"

    def _looked_up(self, depth: int) -> str:
        options = (
            f"object.get(input.o, {self._of('str', depth)}, {self._of('num', 0)})",
            f"input.o[{self._of('str', depth)}]",
            f"input.xs[{self._pick((0, 1, 2))}]",
            f'indexof({self._of("str", depth)}, "{self._pick(("a", "b", ".", "é", "ab"))}")',
            "data.rows[0].n",
        )
        return str(self._pick(options))

    def _text(self, depth: int) -> str:
        literal = self._pick(TEXTS).replace("\u2028", "\\u2028")
        return str(
            self._pick((f'"{literal}"', f'"{literal}"', "input.s", "input.t", "data.rows[1].name", "input.ss[0]"))
        )

    def _cut(self, depth: int) -> str:
        text = self._of("str", depth)
        options = (
            f"substring({text}, {self._pick((0, 1, 2, 5))}, {self._pick((-1, 0, 1, 3))})",
            f"{self._pick(('lower', 'upper', 'trim_space', 'strings.reverse'))}({text})",
            f"{self._pick(('trim', 'trim_left', 'trim_right', 'trim_prefix', 'trim_suffix'))}({text}, {self._of('str', 0)})",
        )
        return str(self._pick(options))

    def _joined(self, depth: int) -> str:
        return f"concat({self._of('str', 0)}, {self._of('strs', depth)})"

    def _template(self, depth: int) -> str:
        third = self._of(self._pick(("bool", "nums", "num", "str")), 1)
        return f'$"<{{{self._of("num", depth)}}}|{{{self._of("str", depth)}}}>{{{third}}}"'

    def _encoded(self, depth: int) -> str:
        call = self._pick(("base64.encode", "base64url.encode"))
        kind = f"type_name({self._of(self._pick(('num', 'strs', 'set', 'obj', 'bool')), depth)})"
        return str(self._pick((f"{call}({self._of('str', depth)})", kind)))

    def _replaced(self, depth: int) -> str:
        old = self._pick(("a", "b", ".", "é"))
        return f'replace({self._of("str", depth)}, "{old}", {self._of("str", 0)})'

    def _compared(self, depth: int) -> str:
        type_ = self._pick(("num", "num", "str", "set", "strs"))
        operator = self._pick(("==", "!=", "<", "<=", ">", ">="))
        return f"{self._of(type_, depth)} {operator} {self._of(type_, depth)}"

    def _text_test(self, depth: int) -> str:
        call = self._pick(("startswith", "endswith", "contains"))
        return f"{call}({self._of('str', depth)}, {self._of('str', depth)})"

    def _membership(self, depth: int) -> str:
        return f"{self._of('str', depth)} in {self._of(self._pick(('strs', 'set')), depth)}"

    def _type_test(self, depth: int) -> str:
        call = self._pick(("is_number", "is_string", "is_array", "is_boolean", "is_null", "is_object", "is_set"))
        return f"{call}({self._pick(('input.n', 'input.s', 'input.xs', 'input.o', 'input.b', 'data.limits.none'))})"

    def _pattern(self, depth: int) -> str:
        return f"regex.match(`{self._pick(PATTERNS)}`, {self._of('str', depth)})"

    def _set_test(self, depth: int) -> str:
        return f"count({self._of('set', depth)} & {self._of('set', depth)}) {self._pick(('>', '=='))} 0"

    def _numbers(self, depth: int) -> str:
        return str(self._pick(("input.xs", "[1, 2, 3]", "[0.5, -1]", "[]", "[input.n, 3]", "[7]")))

    def _number_list(self, depth: int) -> str:
        low = self._pick((0, 1, 3))
        return str(
            self._pick(
                (
                    f"numbers.range({low}, {self._pick((0, 4))})",
                    f"array.concat({self._of('nums', depth)}, {self._of('nums', depth)})",
                    f"array.slice({self._of('nums', depth)}, {low}, {self._pick((-1, 1, 3, 9))})",
                    f"array.reverse({self._of('nums', depth)})",
                )
            )
        )

    def _sorted_numbers(self, depth: int) -> str:
        return f"sort({self._of('nums', depth)})"

    def _collected_numbers(self, depth: int) -> str:
        return self._collection("num", "nums", depth, "[", "]")

    def _texts(self, depth: int) -> str:
        return str(self._pick(("input.ss", '["a", "b"]', "[]", "data.table.a", "[input.s]", "data.names")))

    def _split(self, depth: int) -> str:
        separator = self._pick((",", ".", "", "a"))
        return f'split({self._of("str", depth)}, "{separator}")'

    def _sorted_texts(self, depth: int) -> str:
        return f"sort({self._of(self._pick(('strs', 'set')), depth)})"

    def _collected_texts(self, depth: int) -> str:
        return self._collection("str", "strs", depth, "[", "]")

    def _array_calls(self, depth: int) -> str:
        call = self._pick(("array.concat", "array.concat", "array.reverse", "array.flatten"))
        if call == "array.concat":
            return f"array.concat({self._of('strs', depth)}, {self._of('strs', depth)})"
        inner = self._of("strs", depth)
        return f"array.flatten([{inner}, {self._of('strs', 0)}])" if call == "array.flatten" else f"{call}({inner})"

    def _set_literal(self, depth: int) -> str:
        return str(self._pick(('{"a", "b"}', "set()", '{"Triage", input.s}', "{name | some name in data.names}")))

    def _set_operation(self, depth: int) -> str:
        return f"({self._of('set', depth)} {self._pick(('|', '&', '-'))} {self._of('set', depth)})"

    def _set_collected(self, depth: int) -> str:
        return self._collection("str", "strs", depth, "{", "}")

    def _key_set(self, depth: int) -> str:
        return f"object.keys({self._of('obj', depth)})"

    def _object(self, depth: int) -> str:
        return str(self._pick(("input.o", '{"a": 1, "b": 2}', "{}", 'object.remove(input.o, ["a"])')))

    def _object_call(self, depth: int) -> str:
        return str(
            self._pick(
                (
                    f"object.union({self._of('obj', depth)}, {self._of('obj', depth)})",
                    f"object.remove({self._of('obj', depth)}, {self._of('strs', depth)})",
                    f"object.filter({self._of('obj', depth)}, {self._of('strs', depth)})",
                )
            )
        )

    def _object_collected(self, depth: int) -> str:
        key, value = f"k{self._fresh}", f"w{self._fresh}"
        self._fresh += 1
        domain = self._of("obj", depth)
        kept, self._bound = self._bound, [*self._bound, (key, "str"), (value, "num")]
        made = f"{{{key}: {self._of('num', 1)} | some {key}, {value} in {domain}; {self._of('bool', 1)}}}"
        self._bound = kept
        return made

    def _collection(self, type_: str, many: str, depth: int, opens: str, closes: str) -> str:
        name = f"c{self._fresh}"
        self._fresh += 1
        domain = self._of(many, depth)
        kept, self._bound = self._bound, [*self._bound, (name, type_)]
        made = f"{opens}{self._of(type_, 1)} | some {name} in {domain}; {self._of('bool', 1)}{closes}"
        self._bound = kept
        return made


# --- builtins that Wasm asks its host for; operands that a builtin declines would end the decision of all packages ----
_Of = Callable[[str, int], str]
_Pick = Callable[[Any], Any]


def _host_number(of: _Of, pick: _Pick, depth: int) -> str:
    return str(
        pick(
            (
                f'strings.count({of("str", depth)}, "{pick(("a", "b", "."))}")',
                f"semver.compare({pick(VERSIONS)}, {pick(VERSIONS)})",
                f'time.parse_duration_ns("{pick(("90m", "1h30m", "2d", "-1.5s", "soon"))}")',
            )
        )
    )


def _host_text(of: _Of, pick: _Pick, depth: int) -> str:
    text = of("str", depth)
    return str(
        pick(
            (
                f'sprintf("%s-%03d", [{text}, count({of("strs", 0)})])',
                f'sprintf("%q|%v|%-5s", [lower({text}), {of("bool", 0)}, {of("set", 0)}])',
                f"{pick(('urlquery.encode', 'hex.encode', 'crypto.sha256', 'base64url.encode_no_pad'))}({text})",
                f"regex.replace({text}, `{pick(PATTERNS)}`, `<$0>`)",
                f'time.weekday([{pick(INSTANTS)}, "{pick(("UTC", "Europe/Berlin", "America/New_York"))}"])',
            )
        )
    )


def _host_test(of: _Of, pick: _Pick, depth: int) -> str:
    return str(
        pick(
            (
                f"strings.any_prefix_match({of('str', depth)}, {of(pick(('strs', 'set')), depth)})",
                f"strings.any_suffix_match({of(pick(('strs', 'set')), depth)}, {of('str', depth)})",
                f"semver.is_valid({pick(VERSIONS)})",
                f"object.subset({of('obj', depth)}, {of('obj', 0)})",
                f"count(net.cidr_contains_matches({pick(NETWORKS)}, {pick(ADDRESSES)})) > 0",
            )
        )
    )


def _host_numbers(of: _Of, pick: _Pick, depth: int) -> str:
    return str(
        pick(
            (
                f"numbers.range_step(0, count({of('strs', depth)}), {pick((1, 2, 3))})",
                f'indexof_n({of("str", depth)}, "{pick(("a", "b", "é"))}")',
                f"time.{pick(('date', 'clock'))}({pick(INSTANTS)})",
            )
        )
    )


def _host_texts(of: _Of, pick: _Pick, depth: int) -> str:
    text = of("str", depth)
    return str(
        pick(
            (
                f"regex.split(`{pick(('[,.]', 'a+', 'b|c'))}`, {text})",
                f"regex.find_n(`{pick(PATTERNS)}`, {text}, {pick((-1, 1, 2))})",
                f'strings.split_n({text}, "{pick((",", ".", "a"))}", {pick((1, 2, 3))})',
            )
        )
    )


def _host_object(of: _Of, pick: _Pick, depth: int) -> str:
    operation = pick(('"add", "value": 1', '"replace", "value": "x"', '"remove"'))
    return f'json.patch({of("obj", depth)}, [{{"path": "/{pick(("a", "b", "zz"))}", "op": {operation}}}])'


VERSIONS = ('"1.2.3"', '"1.10.0"', '"1.2.3-rc.1"', '"1.2"', "input.s")
INSTANTS = ("0", "1700000000123456789", "1711846800000000000")
NETWORKS = ('["10.0.0.0/8", "10.1.0.0/16"]', '{"192.168.0.0/16", "fc00::/7"}', '"0.0.0.0/0"', '"10.0.0.0/33"')
ADDRESSES = ('["10.1.2.3", "11.0.0.1"]', '"::ffff:10.0.0.1"', '"fd00::1"', '"192.168.3.0/24"', "input.t")
_HOST_MAKERS: dict[str, Callable[[_Of, _Pick, int], str]] = {
    "num": _host_number,
    "str": _host_text,
    "bool": _host_test,
    "nums": _host_numbers,
    "strs": _host_texts,
    "obj": _host_object,
}
