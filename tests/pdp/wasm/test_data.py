"""A bundle's data is one object with integers written as integers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import PolicyRefused
from pdp.wasm.data import encode_data


@pytest.mark.parametrize(
    ("data", "written"),
    [
        pytest.param({}, b"{}", id="nothing"),
        pytest.param({"a": {}}, b'{"a":{}}', id="an empty object inside"),
        pytest.param({"a": 1.0}, b'{"a":1}', id="an integral float"),
        pytest.param({"a": {"b": [1.0, {"c": 2.0}], "d": 1.5}}, b'{"a":{"b":[1,{"c":2}],"d":1.5}}', id="deep inside"),
        pytest.param({"a": 1e20}, b'{"a":1e+20}', id="a float beyond every integer"),
        pytest.param({"a": "1.0"}, b'{"a":"1.0"}', id="text that looks like one"),
        pytest.param(
            {"a": {"x": 1, "y": [True, None]}, "b": []}, b'{"a":{"x":1,"y":[true,null]},"b":[]}', id="as it is"
        ),
    ],
)
def test_encode_data_writes_one_object_when_values_are_json(data: Any, written: bytes) -> None:
    assert encode_data(data) == written


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([], id="a list"),
        pytest.param(None, id="null"),
        pytest.param({"a": b""}, id="bytes"),
        pytest.param({"a": {"b": {1: 2}}}, id="a key that is a number"),
        pytest.param({1: 2}, id="a first key that is a number"),
        pytest.param({"a": "\ud800"}, id="a lone surrogate"),
    ],
)
def test_encode_data_refuses_when_it_is_no_object_of_json(data: Any) -> None:
    with pytest.raises(PolicyRefused) as refused:
        encode_data(data)
    assert refused.value.code == "policy_data_invalid"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e9, 1e9)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES, max_size=4))
def test_encode_data_says_the_same_value_when_it_is_read_again(data: dict[str, Any]) -> None:
    assert orjson.loads(encode_data(data)) == data
