"""The service as it is installed: `python -m tools.bench.plain serve …`.

structlog imports rich where it is, and here our own tools bring it along; that would count as ours.
"""

from __future__ import annotations

import sys

sys.modules["rich"] = None  # type: ignore[assignment]

from app.__main__ import main  # noqa: E402

if __name__ == "__main__":
    main()
