"""From the signature of a Python function to the schemas of a tool, with its mistakes told at definition.

Owns which parameters a tool may have and how JSON arguments become Python values. Knows no call in progress.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from retinue.runs.capabilities import Caller
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput

KEY = "key"
"""The keyword-only parameter that receives the idempotency key."""

_PREFIX = "arg_"
_CONFIG = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")


@dataclass(frozen=True, slots=True)
class Signature:
    """What a tool takes and gives. `caller` is the name of the parameter that receives the Caller."""

    model: type[BaseModel]
    parameters: tuple[str, ...]
    required: frozenset[str]
    wants_key: bool
    caller: str | None
    output: TypeAdapter[Any]
    output_type: Any

    def input_schema(self) -> dict[str, Json]:
        """JSON Schema of the arguments, without the titles that pydantic derives from names."""
        schema = self.model.model_json_schema(by_alias=True)
        return _drop_titles(schema)

    def output_schema(self) -> dict[str, Json]:
        """JSON Schema of the result."""
        return _drop_titles(self.output.json_schema(mode="serialization"))

    def bind(self, values: BaseModel) -> dict[str, Any]:
        """Keyword arguments for the function."""
        fields = values.__dict__
        return {name: fields[_PREFIX + name] for name in self.parameters}


def read_signature(function: Callable[..., Any]) -> Signature:
    """Schemas from type hints. Raises InvalidInput naming the function, the parameter and the remedy."""
    where = name_function(function)
    hints = _read_hints(function, where)
    fields: dict[str, Any] = {}
    wants_key, caller = False, None
    for name, parameter in inspect.signature(function).parameters.items():
        _refuse_kind(where, parameter)
        if name not in hints:
            _refuse(where, f"parameter {name!r} has no type", f"Annotate it: {name}: str")
        keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if hints[name] is Caller and keyword_only:
            caller = name
        elif name == KEY and keyword_only:
            wants_key = _check_key(where, hints[name])
        else:
            fields[name] = _field(where, parameter, hints[name])
    if "return" not in hints:
        _refuse(where, "has no return type", "Annotate it: -> str, -> list[Passage], -> None")
    return Signature(
        model=_build_model(where, function.__name__, fields),
        parameters=tuple(fields),
        required=frozenset(name for name, (_, field) in fields.items() if field.is_required()),
        wants_key=wants_key,
        caller=caller,
        output=_build_adapter(where, hints["return"]),
        output_type=hints["return"],
    )


def name_function(function: Callable[..., Any]) -> str:
    """`module.function`, for messages."""
    return f"{function.__module__}.{function.__qualname__}"


def _read_hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        _refuse(where, f"its type hints cannot be read: {error}", "Import the types where the tool is defined.")


def _refuse_kind(where: str, parameter: inspect.Parameter) -> None:
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
        problem = f"parameter '{stars}{parameter.name}' takes any number of values"
        _refuse(where, problem, "Name each argument, or take one list.")
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        _refuse(
            where,
            f"parameter {parameter.name!r} is positional only",
            "Arguments are named: remove the slash.",
        )


def _check_key(where: str, hint: object) -> bool:
    if hint is not str:
        _refuse(where, "parameter 'key' receives the idempotency key and is not a str", "Annotate it: key: str")
    return True


def _field(where: str, parameter: inspect.Parameter, hint: Any) -> tuple[Any, Any]:
    default = ... if parameter.default is inspect.Parameter.empty else parameter.default
    if isinstance(default, FieldInfo):
        remedy = f"Write {parameter.name}: Annotated[type, Field(...)] = default."
        _refuse(where, f"parameter {parameter.name!r} has Field(...) as its default", remedy)
    if default is not ...:
        try:
            _build_adapter(where, hint).validate_python(default)
        except ValidationError as error:
            problem = f"the default of {parameter.name!r} is {default!r}: {error.errors()[0]['msg']}"
            _refuse(where, problem, "Correct the default or widen the type, such as int | None.")
    return Annotated[hint, Field(alias=parameter.name)], Field(default, alias=parameter.name)


def _build_model(where: str, name: str, fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    prefixed: dict[str, Any] = {_PREFIX + parameter: field for parameter, field in fields.items()}
    try:
        model: type[BaseModel] = create_model(
            name,
            __config__=_CONFIG,
            **prefixed,
        )
        model.model_json_schema(by_alias=True)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        _refuse(where, f"an argument's type has no JSON form: {_first_line(error)}", "Use JSON types or models.")
    return model


def _build_adapter(where: str, hint: Any) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        adapter.json_schema(mode="serialization")
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        _refuse(where, f"its return type has no JSON form: {_first_line(error)}", "Return JSON types or models.")
    return adapter


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _drop_titles(schema: dict[str, Json]) -> dict[str, Json]:
    """Without `title` where it is a label; a property may be named so."""
    cleaned: dict[str, Json] = {}
    for name, part in schema.items():
        if name == "title" and isinstance(part, str):
            continue
        if name in ("properties", "$defs", "patternProperties") and isinstance(part, dict):
            cleaned[name] = {key: _drop_titles(inner) for key, inner in part.items()}
        elif isinstance(part, dict) and name not in ("default", "const", "example"):
            cleaned[name] = _drop_titles(part)
        elif isinstance(part, list) and name in ("anyOf", "oneOf", "allOf", "prefixItems"):
            cleaned[name] = [_drop_titles(inner) for inner in part]
        else:
            cleaned[name] = part
    return cleaned


def _refuse(where: str, problem: str, remedy: str) -> NoReturn:
    raise InvalidInput(f"tool {where}: {problem}. {remedy}")
