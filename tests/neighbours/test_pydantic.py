"""pydantic-core, an extension in Rust (PyO3): validators and serializers in Python that wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pydantic
import pytest
from crowd import run_crowd
from helpers import in_task
from pydantic_core import SchemaValidator, core_schema

import pygo

Wait = Callable[[], None]


def model(wait: Wait) -> type[pydantic.BaseModel]:
    def waiting(value: Any) -> Any:
        wait()
        return value

    def around(value: Any, handler: Any) -> Any:
        wait()
        return handler(value)

    class Inner(pydantic.BaseModel):
        number: Annotated[int, pydantic.BeforeValidator(waiting), pydantic.PlainSerializer(waiting)]

    class Model(pydantic.BaseModel):
        first: Annotated[int, pydantic.AfterValidator(waiting)]
        many: list[Annotated[Inner, pydantic.WrapValidator(around)]]
        by_name: dict[str, Annotated[int, pydantic.WrapSerializer(around)]]

        @pydantic.model_validator(mode="after")
        def whole(self) -> Model:
            wait()
            return self

        @pydantic.field_serializer("first")
        def serialized(self, value: int) -> int:
            wait()
            return value + 1

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def count(self) -> int:
            wait()
            return len(self.many)

    return Model


INPUT = {"first": "1", "many": [{"number": "2"}, {"number": 3}], "by_name": {"a": 4, "b": 5}}
OUTPUT = {"first": 2, "many": [{"number": 2}, {"number": 3}], "by_name": {"a": 4, "b": 5}, "count": 2}
TEXT = '{"first":2,"many":[{"number":2},{"number":3}],"by_name":{"a":4,"b":5},"count":2}'


def validation(wait: Wait) -> Any:
    instance = model(wait).model_validate(INPUT)
    return instance.model_dump(), instance.model_dump_json()


def validation_of_json(wait: Wait) -> Any:
    text = '{"first": 1, "many": [{"number": 2}, {"number": 3}], "by_name": {"a": 4, "b": 5}}'
    return model(wait).model_validate_json(text).model_dump()


def failures(wait: Wait) -> Any:
    def refuse(value: int) -> int:
        wait()
        if value > 1:
            raise ValueError(f"{value} is too much")
        return value

    adapter = pydantic.TypeAdapter(list[Annotated[int, pydantic.AfterValidator(refuse)]])
    try:
        adapter.validate_python([0, 1, 2, "x", 3])
    except pydantic.ValidationError as exc:
        return [error["type"] for error in exc.errors()]


def generators(wait: Wait) -> Any:
    """A lazy validator: Rust iterates a Python generator, and Python iterates the Rust iterator."""

    def values() -> Any:
        for number in range(4):
            wait()
            yield str(number)

    validator = SchemaValidator(core_schema.generator_schema(core_schema.int_schema()))
    return list(validator.validate_python(values()))


def recursion(wait: Wait) -> Any:
    """Rust calls Python calls Rust, with waits at every level."""

    def nested(value: Any) -> Any:
        wait()
        return adapter.validate_python(value - 1) + 1 if value > 0 else 0

    adapter = pydantic.TypeAdapter(Annotated[int, pydantic.AfterValidator(nested)])
    return adapter.validate_python(6)


WAYS = {
    validation: (OUTPUT, TEXT),
    validation_of_json: OUTPUT,
    failures: ["value_error", "int_parsing", "value_error"],
    generators: [0, 1, 2, 3],
    recursion: 6,
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_pydantic_calls_may_wait(way: Any, workers: int) -> None:
    run_crowd(way, WAYS[way])


def test_exceptions_leave_pydantic_after_a_wait(workers: int) -> None:
    def broken(value: int) -> int:
        pygo.yield_now()
        raise KeyError("broken")

    adapter = pydantic.TypeAdapter(Annotated[int, pydantic.AfterValidator(broken)])
    for _ in range(10):
        with pytest.raises(KeyError):
            in_task(adapter.validate_python, 1)
