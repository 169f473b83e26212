"""ssh.run: runs one command of the catalog's on a host."""

from __future__ import annotations

from pydantic import Field

from app.backends.action import Action, Context
from app.domain.errors import PermanentError
from app.domain.model import JsonObject
from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk
from remediator_ssh.backend import SSH
from remediator_ssh.command import Command

_SHOWN = 200


class RunParams(Command):
    """What to run and what counts as success."""

    expect_status: tuple[int, ...] = Field(default=(0,), min_length=1, description="Exit statuses that are success.")
    idempotent: bool = Field(default=False, description="Running it twice does no more than running it once.")


class Run(Action[RunParams]):
    """Runs one command and judges its exit status."""

    name = "ssh.run"
    summary = "Run a command of the catalog's on a host, over SSH."
    Params = RunParams
    risk = Risk.DISRUPTIVE
    target_backend = "ssh"
    repeatable = False  # depends on the command, see can_repeat

    def can_repeat(self, step: PlannedStep) -> bool:
        """Where the author says so."""
        return RunParams.model_validate(step.params).idempotent

    async def plan(self, context: Context, params: RunParams) -> PlannedStep:
        """Log in and run nothing."""
        await (await SSH.of(context)).log_in()
        return self.planned(
            params,
            summary=f"run {params.line} on {context.target.name}",
            desired={"exit_status": list(params.expect_status)},
        )

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """Run it; a status that is not expected is a failure, with the first of what the command said."""
        params = RunParams.model_validate(step.params)
        ended = await (await SSH.of(context)).run(params.line)
        if ended.status not in params.expect_status:
            said = (ended.errors or ended.output)[:_SHOWN].strip()
            message = f"the command ended with {ended.status}" + (f": {said}" if said else "")
            raise PermanentError(message, reason=Reason.ACTION_FAILED)
        return {"exit_status": ended.status, "output": ended.output, "errors": ended.errors}
