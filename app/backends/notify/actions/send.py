"""notify.send: tells people, through a channel of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.backends.action import Action, Context
from app.backends.base import Names
from app.backends.notify.backend import NOTIFY
from app.domain.model import JsonObject, Value
from app.domain.plans import PlannedStep
from app.domain.remediation import Risk


class SendParams(Value):
    """The message and its channel."""

    channel: Annotated[str, Names("notify")] = Field(description="A channel of connections.notify.")
    title: str = Field(min_length=1, max_length=250)
    body: str = Field(min_length=1, max_length=16_384)
    type: Literal["info", "success", "warning", "failure"] = "info"


class Send(Action[SendParams]):
    """Delivers one message to every service of a channel."""

    name = "notify.send"
    summary = "Send a message to a notification channel."
    Params = SendParams
    risk = Risk.LOW
    repeatable = False
    words = frozenset({"title", "body"})

    async def plan(self, context: Context, params: SendParams) -> PlannedStep:
        """Check that the channel exists; sends nothing."""
        services = (await NOTIFY.channel(context.clients, params.channel)).services
        return self.planned(
            params, summary=f"tell channel {params.channel}: {params.title}", desired={"delivered": services}
        )

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """Send the message."""
        params = SendParams.model_validate(step.params)
        notifier = await NOTIFY.channel(context.clients, params.channel)
        return {"delivered": await notifier.send(params.title, params.body, params.type)}
