"""The service as it is installed: `python -m tools.bench.plain serve …`.

structlog imports rich where it is, httpx pygments, and here our own tools bring both along; that would count as ours.
"""

from __future__ import annotations

import sys

for name in ("rich", "pygments"):
    sys.modules[name] = None  # type: ignore[assignment]

from app.__main__ import main  # noqa: E402

if __name__ == "__main__":
    main()
