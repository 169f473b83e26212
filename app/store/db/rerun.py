"""Runs a transaction again that PostgreSQL gave up for another one, after a deadlock say.

For functions that are one transaction of `Database.write`, and do nothing before its end that must not be done twice.
"""

from __future__ import annotations

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from app.domain.errors import TransactionLostError

_TRIES = 10  # PostgreSQL sees a deadlock after a second; the loser of ten is not random

rerun = retry(
    retry=retry_if_exception_type(TransactionLostError),
    stop=stop_after_attempt(_TRIES),
    wait=wait_random_exponential(multiplier=0.02, max=0.5),
    reraise=True,
)
