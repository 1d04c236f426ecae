"""Settings and descriptions that come from JSON: frozen values, checked once, with one-line errors."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from rewrite_core.errors import PalimpsestError, RequestError

__all__ = ["Settings"]


class Settings(BaseModel):
    """A frozen value that refuses unknown names, wrong types, infinities and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, data: Any, what: str, error: type[PalimpsestError] = RequestError) -> Self:
        """Check `data` (decoded JSON); `what` names its origin in the error.

        Raises:
            PalimpsestError: of the type `error`, naming the first field that is wrong and its value.
        """
        try:
            return cls.model_validate_json(json.dumps(data))
        except ValidationError as problem:
            first = problem.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the top level"
            found = f"{what}: {field} is {_short(first.get('input'))}"
            raise error(
                found=found, expected=_expected(first["msg"]), remedy=f"Correct {field} and try again."
            ) from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _expected(message: str) -> str:
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return message[:1].lower() + message[1:]
