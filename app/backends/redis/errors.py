"""The meaning of a Redis error: by the code at the beginning of an answer, never by its words.

Each is one of: it may be tried again, it is refused and the message names the change to make, or its effect is unknown.
Words differ between versions, forks and proxies.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from redis import exceptions

from app.domain.errors import ActionError, OutcomeUnknownError, PermanentError, TransientError
from app.domain.reasons import Reason

_ANY = "ERR"  # the code of an error without one


@dataclass(frozen=True, slots=True)
class _Meaning:
    """The message for a code; without a reason it may pass, and is tried again."""

    advice: str
    reason: Reason | None = None


_MEANINGS = {
    "LOADING": _Meaning("it is loading its data set"),
    "BUSY": _Meaning("a script keeps it busy"),
    "TRYAGAIN": _Meaning("slots of the cluster are being moved"),
    "CLUSTERDOWN": _Meaning("its cluster is down"),
    "MASTERDOWN": _Meaning("it is a replica that has lost its primary"),
    "NOMASTERLINK": _Meaning("it is a replica that has lost its primary"),
    "NOREPLICAS": _Meaning("too few replicas follow it to take writes"),
    "INPROG": _Meaning("a failover is under way"),
    "NOAUTH": _Meaning("it asks for a login; put user and password into the connection's URL", Reason.FORBIDDEN),
    "WRONGPASS": _Meaning("the login is refused; correct user and password in the URL", Reason.FORBIDDEN),
    "NOPERM": _Meaning("the user may not do that; give it the command and the keys (ACL SETUSER)", Reason.FORBIDDEN),
    "DENIED": _Meaning("its protected mode takes no connections from elsewhere", Reason.FORBIDDEN),
    "READONLY": _Meaning("it is a replica; name its primary as the target", Reason.FORBIDDEN),
    "MOVED": _Meaning("another node of the cluster has these keys now; name that one, too", Reason.ACTION_FAILED),
    "ASK": _Meaning("these keys are just being moved to another node of the cluster", Reason.ACTION_FAILED),
    "CROSSSLOT": _Meaning("the keys are in several slots of the cluster", Reason.ACTION_FAILED),
    "MISCONF": _Meaning("it takes no writes while it cannot save to its disk; mend that first", Reason.ACTION_FAILED),
    "OOM": _Meaning("it has no memory left for this command (maxmemory)", Reason.ACTION_FAILED),
    "EXECABORT": _Meaning("the transaction was discarded; nothing was done", Reason.ACTION_FAILED),
    _ANY: _Meaning("it does not do that; the command may be renamed or disabled there", Reason.FORBIDDEN),
}
_LOGIN = exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.ExternalAuthProviderError
_OTHER = _Meaning("it refuses", Reason.ACTION_FAILED)


def code_of(error: exceptions.RedisError) -> str | None:
    """The code that the server's answer began with; None where there was no answer."""
    known: str | None = getattr(error, "status_code", None)
    if known:
        return known
    if isinstance(error, exceptions.ResponseError):
        first = str(error).partition(" ")[0]
        return first if first.isupper() and first.isalpha() else _ANY
    return None


def answered(error: exceptions.RedisError) -> bool:
    """Say whether the server has said no; else the effect of the command is unknown."""
    return code_of(error) is not None


def translated(error: exceptions.RedisError, address: str, *, connecting: bool = False) -> ActionError:
    """The error of ours for one of the SDK's; `address` is where the server is, without a login."""
    code = code_of(error)
    if code == _ANY and isinstance(error, exceptions.ConnectionError) and not isinstance(error, _LOGIN):
        return TransientError(f"Redis at {address} takes no connection now ({error})")
    if code is not None:
        return _meant(code, str(error), address)
    if isinstance(error, exceptions.InvalidResponse):
        message = f"the server at {address} is not Redis; correct the connection's URL"
        return PermanentError(message, reason=Reason.CONFIG_INVALID)
    if not isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError):
        return PermanentError(f"Redis at {address}: {error}")
    what = "cannot connect to Redis at {}: {}" if connecting else "the connection to Redis at {} was lost: {}"
    return TransientError(what.format(address, _cause(error)))


def lost(error: exceptions.RedisError, address: str, command: str) -> OutcomeUnknownError:
    """The error for a command whose answer never came, or is none."""
    if isinstance(error, exceptions.InvalidResponse):
        return OutcomeUnknownError(f"the answer of Redis at {address} to {command} cannot be understood")
    message = f"the connection to Redis at {address} was lost before {command} was answered: {_cause(error)}"
    return OutcomeUnknownError(message)


def _meant(code: str, words: str, address: str) -> ActionError:
    meaning = _MEANINGS.get(code, _OTHER)
    said = words.removeprefix(code).strip()
    message = f"Redis at {address}: {meaning.advice} ({code}: {said})" if said else f"Redis: {meaning.advice} ({code})"
    return TransientError(message) if meaning.reason is None else PermanentError(message, reason=meaning.reason)


def _cause(error: exceptions.RedisError) -> str:
    """Why, as the system tells it."""
    under = error.__cause__ or error.__context__
    if isinstance(error, exceptions.TimeoutError) or isinstance(under, TimeoutError):
        return "no answer in time"
    if isinstance(under, ssl.SSLError):
        return f"TLS: {getattr(under, 'reason', None) or under.strerror or type(under).__name__}"
    if isinstance(under, OSError):
        number = under.errno or 0  # negative: not found by its name
        return os.strerror(number) if number > 0 else str(under.strerror or under)
    return "the server closed it"
