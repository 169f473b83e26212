"""The command line.

Exit codes: 0 yes, 1 no (there are problems, nothing would be done), 2 cannot tell (usage, settings, store).
"""

from __future__ import annotations

import click

from app import __version__
from app.cli.auditing import audit
from app.cli.checking import check, schema
from app.cli.history import runs_command
from app.cli.pausing import pause, resume, status
from app.cli.planning import plan
from app.cli.reference import backends_command
from app.cli.serving import migrate_command, serve_command


def main() -> None:
    """Run the command line."""
    cli(prog_name="remediator")


@click.group(
    commands=[
        serve_command,
        check,
        plan,
        runs_command,
        pause,
        resume,
        status,
        schema,
        backends_command,
        migrate_command,
        audit,
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="remediator")
def cli() -> None:
    """Turn Prometheus alerts into safe, verified, audited remediations."""
