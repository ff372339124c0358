"""A bundle's data is one object with integers written as integers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import PolicyRefused
from pdp.wasm.data import data_pieces, encode_data, split_data


@pytest.mark.parametrize(
    ("data", "written"),
    [
        pytest.param({}, b"{}", id="nothing"),
        pytest.param({"a": {}}, b'{"a":{}}', id="an empty object inside"),
        pytest.param({"a": 1.0}, b'{"a":1}', id="an integral float"),
        pytest.param({"a": "3e4", "b": 1.5}, b'{"a":"3e4","b":1.5}', id="what looks like a number in a string"),
        pytest.param({"a": ["3e4", 2.0]}, b'{"a":["3e4",2]}', id="an integral float beside such a string"),
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


@pytest.mark.parametrize(
    ("data", "texts", "written"),
    [
        pytest.param({}, {"a": b"[1]"}, b'{"a":[1]}', id="only a text"),
        pytest.param({"a": 1}, {"b": b"2", 'c"': b"{}"}, b'{"a":1,"b":2,"c\\"":{}}', id="texts after data"),
        pytest.param({"a": {}}, {}, b'{"a":{}}', id="no texts"),
    ],
)
def test_data_pieces_make_one_object_when_texts_stand_beside_data(
    data: Any, texts: dict[str, bytes], written: bytes
) -> None:
    assert b"".join(data_pieces(data, texts)) == written


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES, max_size=4), st.sets(st.integers(0, 3)))
def test_split_data_says_the_same_value_when_it_is_put_together_again(data: dict[str, Any], here: set[int]) -> None:
    read_here = {name for number, name in enumerate(data) if number in here}
    kept, texts = split_data(data, read_here)
    assert read_here <= kept.keys() and not kept.keys() & texts.keys()
    assert orjson.loads(b"".join(data_pieces(kept, texts))) == data


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"2": 1}, id="a name that is a number"),
        pytest.param({"a": [{"0x1": 1, "1e3": 2}]}, id="deep inside"),
    ],
)
def test_split_data_keeps_what_the_engine_would_refuse_when_a_name_reads_as_a_number(value: Any) -> None:
    assert split_data({"odd": value, "plain": {"a": 1.0}}, ()) == ({"odd": value}, {"plain": b'{"a":1}'})
