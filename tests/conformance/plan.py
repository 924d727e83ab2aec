"""Which scenarios of the official suite are run, what fails by intent and why, and what is not run."""

from __future__ import annotations

OLD, NEW = "2025-11-25", "2026-07-28"

CLIENT: dict[str, tuple[str, ...]] = {
    "initialize": (OLD,),
    "tools_call": (OLD, NEW),
    "elicitation-sep1034-client-defaults": (OLD,),
    "sse-retry": (OLD,),
    "json-schema-2020-12-preservation": (OLD, NEW),
    "request-metadata": (NEW,),
    "sep-2322-client-request-state": (NEW,),
    "http-standard-headers": (NEW,),
    "http-custom-headers": (NEW,),
    "http-invalid-tool-headers": (NEW,),
    "json-schema-ref-no-deref": (NEW,),
}
"""All client scenarios that are not about authorization or skills, at each revision they have."""

SERVER: dict[str, tuple[str, ...]] = {
    "server-initialize": (OLD,),
    "ping": (OLD,),
    "tools-list": (OLD, NEW),
    "dns-rebinding-protection": (OLD, NEW),
    "server-sse-multiple-streams": (OLD, NEW),
    "server-stateless": (NEW,),
    "caching": (NEW,),
    "http-header-validation": (NEW,),
    "tasks-lifecycle": (NEW,),
    "tasks-capability-negotiation": (NEW,),
    "tasks-wire-fields": (NEW,),
    "tasks-request-state-removal": (NEW,),
    "tasks-mrtr-input": (NEW,),
    "tasks-request-headers": (NEW,),
    "tasks-dispatch-and-envelope": (NEW,),
}
"""Server scenarios that ask for what `retinue mcp` has."""

TOOLS = ("greet", "slow_compute", "failing_job", "confirm_delete", "multi_input")
"""Workflows of `tests.conformance.project` that are served as tools."""

BY_INTENT: dict[str, str] = {
    "server-sse-multiple-streams-session": "no session is kept, so there is no session id",
    "sep-2575-server-rejects-undeclared-capability": "needs a diagnostic tool of the suite's",
    "sep-2575-missing-capability-http-400": "needs a diagnostic tool of the suite's",
    "sep-2575-http-server-no-independent-requests-on-stream": "needs a diagnostic tool of the suite's",
    "sep-2575-server-no-log-without-loglevel": "needs a diagnostic tool of the suite's",
    "sep-2549-prompts-list-caching-hints": "no prompts",
    "sep-2549-resources-list-caching-hints": "no resources",
    "sep-2549-resources-templates-list-caching-hints": "no resources",
    "sep-2663-tasks-get-status-failed": "a run that failed is a result; no run ends as an error of the protocol",
}
"""Checks that do not pass, by their names, and why that is meant."""

NOT_SERVED: dict[str, str] = {
    "prompts, resources, completion, logging": "`retinue mcp` has tools only",
    "tools-call-*, elicitation-*, input-required-*": "they call tools of the suite's own reference server",
    "server-session-lifecycle, server-sse-polling": "no session is kept and no stream is resumed: any process answers",
    "json-schema-2020-12, http-custom-header-server-validation": "need tools with particular schemas",
    "tasks-required-task-error, tasks-mrtr-composition": "no tool needs tasks, or asks before there is a run",
    "tasks-status-notifications": "skipped by the suite itself; tasks are polled",
    "sep-2640-*": "skills are an extension that is not offered",
}
"""Server scenarios that are not run."""

NOT_CLIENT: dict[str, str] = {
    "auth/*": "not done: the client sends a bearer token by reference (`auth: ${NAME}`) and has no OAuth flow",
    "sep-2640-*": "skills are an extension that is not used",
}
"""Client scenarios that are not run."""
