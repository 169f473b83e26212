"""`python -m app` and the `remediator` command."""

from __future__ import annotations

import gc
import sys

gc.disable()  # imported modules stay: looking for garbage in them again and again costs a sixth of the start

from app.domain.errors import ConfigError  # noqa: E402

try:
    from app.cli import main
except ConfigError as error:  # a plug-in cannot be used: the settings are made of what the backends say
    sys.stderr.write(f"remediator: {error.message}\n")
    sys.exit(2)

gc.freeze()  # later collections need not look at it either, which would hold everything up for a tenth of a second
gc.enable()
# How long a thread that is busy keeps the others from going on: the usual 5 ms would be added to each of their calls.
sys.setswitchinterval(0.0005)

if __name__ == "__main__":
    main()
