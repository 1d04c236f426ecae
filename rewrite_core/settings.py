"""Settings and descriptions that come from JSON: frozen values, checked once, with one-line errors."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

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
            field = ".".join(str(part) for part in first["loc"] if _named(part)) or "the top level"
            found = f"{what}: {field} is {_short(first.get('input'))}"
            raise error(
                found=found, expected=_expected(first), remedy=f"Correct {field} and try again."
            ) from None


def _named(part: int | str) -> bool:
    """Whether a part of an error's place is in the file, and not pydantic's name for a branch of a union."""
    return isinstance(part, int) or (part.isidentifier() and not part[:1].isupper())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _expected(problem: ErrorDetails) -> str:
    message, context = problem["msg"], problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        return "no field of that name"
    if problem["type"] == "union_tag_invalid":
        return f"{context['discriminator']} to be one of {context['expected_tags']}"
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return message[:1].lower() + message[1:]
