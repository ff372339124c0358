"""Values of a call: frozen, equal by their fields within their class, and changed only into another."""

from __future__ import annotations

import pytest

from pdp.value import Value


class Point(Value, frozen=True):
    x: int
    y: int = 0


class Other(Value, frozen=True):
    x: int
    y: int = 0


class Silent(Value):
    """Says nothing about being frozen."""

    x: int


@pytest.mark.parametrize("kind", [Point, Silent])
def test_value_cannot_be_changed_whether_or_not_its_class_says_so(kind: type[Point] | type[Silent]) -> None:
    value = kind(1)
    with pytest.raises(AttributeError):
        value.x = 2  # type: ignore[misc]
    assert value.x == 1


def test_value_is_equal_by_its_fields_to_one_of_its_own_class_alone() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)


def test_value_is_replaced_by_another_when_a_field_is_to_differ() -> None:
    point = Point(1, 2)
    assert point._replace(y=3) == Point(1, 3)
    assert point == Point(1, 2)
    with pytest.raises(TypeError):
        point._replace(z=1)


def test_value_gives_its_fields_by_name_in_order() -> None:
    assert list(Point(1, 2)._asdict().items()) == [("x", 1), ("y", 2)]
