"""A typed client of the service, synchronous and asynchronous, which needs no torch.

    from imagexplain.client import Client

    with Client.local() as client:
        explanation = client.explain("photo.jpg", "bit", target_class="star", segments="slic")
        print(explanation.classes[0].score, explanation.tensors["integrated_grads"].shape)

Names are imported when they are first used, so that whoever needs one module of it alone takes no more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagexplain.client.answers import Explanation as Explanation
    from imagexplain.client.answers import Prediction as Prediction
    from imagexplain.client.answers import Tensors as Tensors
    from imagexplain.client.async_client import AsyncClient as AsyncClient
    from imagexplain.client.client import Client as Client
    from imagexplain.client.errors import AnswerError as AnswerError
    from imagexplain.client.errors import BadRequestError as BadRequestError
    from imagexplain.client.errors import BusyError as BusyError
    from imagexplain.client.errors import ClientError as ClientError
    from imagexplain.client.errors import ConnectionLostError as ConnectionLostError
    from imagexplain.client.errors import ImpossibleError as ImpossibleError
    from imagexplain.client.errors import InputError as InputError
    from imagexplain.client.errors import NoAnswerError as NoAnswerError
    from imagexplain.client.errors import NoServerError as NoServerError
    from imagexplain.client.errors import OutOfTimeError as OutOfTimeError
    from imagexplain.client.errors import RefusedError as RefusedError
    from imagexplain.client.errors import ServerFaultError as ServerFaultError
    from imagexplain.client.errors import StatusError as StatusError
    from imagexplain.client.errors import TimedOutError as TimedOutError
    from imagexplain.client.errors import TooLargeError as TooLargeError
    from imagexplain.client.errors import TooManyRequestsError as TooManyRequestsError
    from imagexplain.client.errors import UnauthorizedError as UnauthorizedError
    from imagexplain.client.errors import UnknownFormatError as UnknownFormatError
    from imagexplain.client.errors import UnknownModelError as UnknownModelError
    from imagexplain.client.errors import UnreachableError as UnreachableError
    from imagexplain.client.errors import WorkerEndedError as WorkerEndedError
    from imagexplain.client.exchange import Retry as Retry
    from imagexplain.client.message import Answer as Answer

_ERRORS = (
    *("AnswerError", "BadRequestError", "BusyError", "ClientError", "ConnectionLostError", "ImpossibleError"),
    *("InputError", "NoAnswerError", "NoServerError", "OutOfTimeError", "RefusedError", "ServerFaultError"),
    *("StatusError", "TimedOutError", "TooLargeError", "TooManyRequestsError", "UnauthorizedError"),
    *("UnknownFormatError", "UnknownModelError", "UnreachableError", "WorkerEndedError"),
)
_PLACES = {
    **dict.fromkeys(_ERRORS, "errors"),
    **dict.fromkeys(("Explanation", "Prediction", "Tensors"), "answers"),
    "Answer": "message",
    "AsyncClient": "async_client",
    "Client": "client",
    "Retry": "exchange",
}

__all__ = list(_PLACES)


if not TYPE_CHECKING:  # to whom a function that finds any name would hide those that are none

    def __getattr__(name: str) -> Any:
        """Import a name when it is first used."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
