"""What is known of a call in a sandbox before anything is done: which sandbox, and what rules see of it.

Knows nothing of how the call is made.
"""

from __future__ import annotations

from retinue.runs.agent_sandbox import AGENT, OPERATIONS
from retinue.runs.capabilities import SANDBOX, Prepared
from retinue.runs.contracts import Json
from retinue.runs.effects.run import Run
from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import ManifestInfo
from retinue.runs.steps import Command


def in_sandbox(call: Prepared) -> bool:
    """Whether a call is about a sandbox of the run."""
    return call.capability.source == SANDBOX


def queue_of(command: Command) -> str | None:
    """What a step has to wait its turn for: a sandbox, or a name that one is to have. None for any other step."""
    if command.effect != "call" or command.name not in OPERATIONS or not isinstance(command.arguments, dict):
        return None
    known = command.arguments.get("sandbox") or command.arguments.get("name") or command.options.get("sandbox")
    return str(known) if known else None


def place_of(run: Run, command: Command, call: Prepared) -> str | None:
    """The sandbox of a call, by the id that steps know it by; None when the call opens it."""
    given = call.arguments.get("sandbox")
    if given is not None:
        return str(given)
    return run.boxes.named(AGENT) if OPERATIONS[call.capability.name] != "open" else None


def manifest_named(run: Run, command: Command) -> str | None:
    """The manifest that a call in a sandbox is about, as far as the step says so; None for any other step."""
    if command.effect != "call" or command.name not in OPERATIONS or not isinstance(command.arguments, dict):
        return None
    state = run.history.boxes.states.get(str(command.arguments.get("sandbox")))
    name = command.arguments.get("manifest") or command.options.get("sandbox")
    return state.manifest if state is not None else name if isinstance(name, str) else None


def manifest_of(run: Run, command: Command, call: Prepared) -> ManifestInfo:
    """The manifest that a call is judged by. PermanentError when there is no such sandbox or manifest."""
    place = place_of(run, command, call)
    name = run.boxes.state(place).manifest if place is not None else None
    name = name or call.arguments.get("manifest") or command.options.get("sandbox")
    if name is None:
        raise PermanentError(
            f"{call.capability.name} works in the sandbox of an agent, and {run.request.target!r} has none: "
            'agent(..., sandbox="MANIFEST"), or ctx.sandbox in a workflow',
            code="no_sandbox",
        )
    return run.boxes.manifest(str(name))


def of_call(run: Run, command: Command, call: Prepared) -> dict[str, Json]:
    """What rules see of a call in a sandbox; nothing of any other."""
    if not in_sandbox(call):
        return {}
    opens = place_of(run, command, call) is None
    return facts_of(manifest_of(run, command, call), call.capability.name) | {"opens": opens}


def facts_of(info: ManifestInfo, capability: str) -> dict[str, Json]:
    """What rules see of a manifest and of what is to be done under it."""
    return {
        "op": OPERATIONS[capability],
        "tool": capability,
        "manifest": info.name,
        "profile": info.profile,
        "network": info.network,
        "confined": info.confined,
        "reviewed": bool(info.reviewed_by),
        "hosts": list(info.hosts),
    }
