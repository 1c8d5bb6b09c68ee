"""Values from outside: models that check them, and the error that says what is wrong."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Precision = Literal[1, 2, 3]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
MESSAGE = 300  # characters of a refusal, at most


def count(most: int, least: int = 1):
    """The type of an integer from `least` to `most`."""
    return Annotated[int, Field(ge=least, le=most)]


class ConfigError(ValueError):
    """A configuration, artifact or image that cannot be used; the message is one short line."""

    def __init__(self, message: str):
        line = " ".join(message.split())
        super().__init__(line if len(line) <= MESSAGE else line[:MESSAGE - 4] + " ...")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def parse(values, where: str, kind: type[BaseModel]):
    """A `kind` from plain values.

    Raises
    ------
    ConfigError
        One line that names `where`, the field, what was wanted and what came.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be a table, not {shown(values)}")
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
    except TypeError as error:  # a key that is no string
        raise ConfigError(f"{where}: {error}") from error
    said = first["msg"].removeprefix("Value error, ")
    own = first["type"] == "value_error"  # our own checks say what came
    came = "" if own or isinstance(first["input"], dict) else f", not {shown(first['input'])}"
    field = ".".join(str(part) for part in first["loc"] if part not in ("conv", "sum", "map"))
    raise ConfigError(": ".join(filter(None, (where, field, said))) + came)


def shown(value) -> str:
    """The value as a message shows it."""
    try:
        return f"{value!r:.60}"
    except ValueError:  # Python refuses to print huge integers
        return f"a {type(value).__name__} with an integer of thousands of digits"
