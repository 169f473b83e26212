"""ssh.exit_status: whether a command that only looks ends as it should."""

from __future__ import annotations

from pydantic import Field

from app.backends.check import Check, CheckContext, observation, observing
from app.domain.plans import Observation
from remediator_ssh.backend import SSH
from remediator_ssh.command import Command


class ExitStatusParams(Command):
    """What to run and how it must end."""

    expect: int = Field(default=0, ge=0, le=255, description="The exit status that holds.")


class ExitStatus(Check[ExitStatusParams]):
    """Runs a command and compares its exit status."""

    name = "ssh.exit_status"
    summary = "A command on a host ends with the expected status."
    Params = ExitStatusParams
    target_backend = "ssh"

    async def observe(self, context: CheckContext, params: ExitStatusParams) -> Observation:
        """Run it once."""
        with observing():
            ended = await (await SSH.of(context)).run(params.line)
        message = f"the command ended with {ended.status}, {params.expect} is expected"
        return observation(ended.status == params.expect, message, exit_status=ended.status)
