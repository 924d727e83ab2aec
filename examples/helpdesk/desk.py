"""The triage of a helpdesk's mails, three times: the same tool under each contract that a write can have.

The agent `triage` reads a mail and says which queue it belongs to; the workflows open the ticket. The helpdesk is
server.py, a process of its own: HELPDESK_URL says where.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import httpx
from pydantic import BaseModel

from retinue import Context, agent, tool, workflow
from retinue.runs.capabilities import Caller
from retinue.runs.errors import PermanentError, TransientError

TIMEOUT = 3.0
"""Seconds that a ticket may take; the line to the helpdesk has a little less."""


class Mail(BaseModel):
    id: str
    sender: str
    subject: str
    text: str


class Triage(BaseModel):
    """What a mail is about. Queue `none`: nobody needs to do anything."""

    queue: Literal["hardware", "software", "network", "access", "billing", "none"]
    subject: str


class Handled(BaseModel):
    mail: str
    queue: str
    ticket: int | None


triage = agent(
    "triage",
    "Read the mail. Name the queue that it belongs to and sum it up in one line.",
    input=Mail,
    output=Triage,
)


async def ask(method: str, path: str, **options: Any) -> httpx.Response:
    """One request to the helpdesk, its failures told apart: surely not done, perhaps done, refused."""
    try:
        async with httpx.AsyncClient(base_url=os.environ["HELPDESK_URL"], timeout=TIMEOUT * 0.9) as client:
            response = await client.request(method, path, **options)
    except httpx.ConnectError as error:
        raise TransientError(f"the helpdesk is away: {error}", code="not_made") from error
    except httpx.TransportError as error:
        raise TransientError(f"the line broke before the helpdesk replied ({type(error).__name__})") from error
    if response.status_code == 503:
        wait = float(response.headers["Retry-After"])
        raise TransientError("the helpdesk is busy", code="not_made", retry_after=wait)
    if response.is_error:
        raise PermanentError(f"the helpdesk says {response.status_code}: {response.text[:200]}", code="refused")
    return response


async def post(ticket: dict[str, Any], caller: Caller, **headers: str) -> int:
    """Open a ticket, unless it comes to the helpdesk too late; returns its number."""
    headers["Deadline"] = f"{caller.deadline / 1e9:.3f}"
    return int((await ask("POST", "/tickets", json=ticket, headers=headers)).json()["number"])


@tool(side_effect="write", idempotency="idempotent", timeout=TIMEOUT, owner="support")
async def open_idempotent(mail: str, subject: str, queue: str, *, key: str, caller: Caller) -> int:
    """Open a ticket. The helpdesk gets the key, and gives the same ticket to the same key."""
    ticket = {"mail": mail, "subject": subject, "queue": queue}
    return await post(ticket, caller, **{"Idempotency-Key": key})


async def find_by_reference(key: str) -> int | None:
    """The number of the ticket that was opened under a key, if there is one."""
    found = (await ask("GET", "/tickets", params={"reference": key})).json()
    return found[0]["number"] if found else None


@tool(side_effect="write", idempotency="reconcilable", probe=find_by_reference, timeout=TIMEOUT, owner="support")
async def open_reconcilable(mail: str, subject: str, queue: str, *, key: str, caller: Caller) -> int:
    """Open a ticket. The helpdesk would open a second one, but it can be searched for the key."""
    return await post({"mail": mail, "subject": subject, "queue": queue, "reference": key}, caller)


@tool(side_effect="write", idempotency="at_most_once", timeout=TIMEOUT, owner="support")
async def open_at_most_once(mail: str, subject: str, queue: str, *, caller: Caller) -> int:
    """Open a ticket at a helpdesk that takes no key and cannot be searched by one: only a person can look."""
    return await post({"mail": mail, "subject": subject, "queue": queue}, caller)


async def handle(ctx: Context, mail: Mail, opener: Any) -> Handled:
    """Have a mail read, then open its ticket when it needs one."""
    read = await ctx.run(triage, mail)
    if read.queue == "none":
        return Handled(mail=mail.id, queue="none", ticket=None)
    number = await ctx.call(opener, mail=mail.id, subject=read.subject, queue=read.queue)
    return Handled(mail=mail.id, queue=read.queue, ticket=number)


@workflow
async def idempotent(ctx: Context, mail: Mail) -> Handled:
    return await handle(ctx, mail, open_idempotent)


@workflow
async def reconcilable(ctx: Context, mail: Mail) -> Handled:
    return await handle(ctx, mail, open_reconcilable)


@workflow
async def at_most_once(ctx: Context, mail: Mail) -> Handled:
    return await handle(ctx, mail, open_at_most_once)
