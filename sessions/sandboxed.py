"""The capabilities of sandboxes in the catalog: operations under the contract of a capability.

A command that failed is a result with its exit code; a refusal is an error that says what to do. Knows no backend, and
not which sandbox a call reaches.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from retinue.runs.capabilities import SANDBOX, Caller, CallResult, Capability
from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import Reach
from retinue.runs.sessions import Link
from retinue.sessions.catalog import Arguments, Invocation
from retinue.sessions.complaints import explain_arguments
from retinue.sessions.results import cap_result
from retinue.sessions.sandbox_faces import FACES
from retinue.sessions.sandbox_operations import OPERATIONS, Asked


class SandboxTool:
    """A capability of sandboxes. Implements `sessions.catalog.Tool`."""

    def __init__(self, asked: type[Asked]) -> None:
        self.origin = f"{asked.__name__} of the runtime's sandboxes"
        self._asked = asked
        self._output: TypeAdapter[Any] = TypeAdapter(asked.result)
        text = " ".join((asked.__doc__ or "").split())
        self.capability = Capability(
            name=asked.name_,
            description=text,
            input_schema=_untitled(asked.model_json_schema()),
            output_schema=_untitled(self._output.json_schema(mode="serialization")),
            side_effect=asked.effect,
            timeout=asked.seconds,
            max_bytes=asked.most,
            source=SANDBOX,
        )

    def __repr__(self) -> str:
        return f"<tool {self.capability.name!r} of sandboxes>"

    def accept(self, arguments: Arguments) -> Arguments:
        """See `Tool.accept`. Arguments are taken strictly."""
        return self._read(arguments).model_dump(mode="json")

    def invoke(self, arguments: Arguments, caller: Caller, link: Link | None) -> Invocation:
        """See `Tool.invoke`. PermanentError `no_sandbox` for a call that reaches none."""
        asked, reach = self._read(arguments), cast("object", link)
        if not isinstance(reach, Reach):
            raise PermanentError(
                f"{self.capability.name} works in a sandbox of a run: call it in one", code="no_sandbox"
            )
        return Invocation(partial(asked.make, reach), blocking=False)

    def invoke_probe(self, arguments: Arguments, caller: Caller) -> Invocation | None:
        """See `Tool.invoke_probe`. A workspace is brought back instead of asked."""
        return None

    def shape(self, outcome: object) -> CallResult:
        """See `Tool.shape`."""
        return cap_result(self.capability, self._output, outcome)

    def _read(self, arguments: Arguments) -> Asked:
        try:
            return self._asked.model_validate_json(to_json(arguments), strict=True)
        except ValidationError as error:
            self._refuse(explain_arguments(self.capability.name, self.capability.input_schema, error))
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            self._refuse(f"tool {self.capability.name!r}: arguments are not JSON: {error}. Send a JSON object.")

    def _refuse(self, problem: str) -> NoReturn:
        raise PermanentError(problem, code="invalid_arguments")


def sandbox_tools(agents: bool) -> tuple[SandboxTool, ...]:
    """What runs can ask of sandboxes; with those of `agents` where any has one."""
    return tuple(SandboxTool(asked) for asked in (*OPERATIONS, *(FACES if agents else ())))


def _untitled(schema: Any) -> Any:
    """A schema without the titles and descriptions that pydantic derives from classes."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    named = isinstance(schema.get("properties"), dict)
    kept = {name: part for name, part in schema.items() if name != "title" and not (named and name == "description")}
    if named:
        kept["properties"] = {name: _untitled(part) for name, part in schema["properties"].items()}
    return {name: part if name == "properties" else _untitled(part) for name, part in kept.items()}
