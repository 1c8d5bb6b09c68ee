"""Values from outside: models that check them, and the error that says what is wrong."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Precision = Literal[1, 2, 3]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
DesignName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
MESSAGE = 300  # characters of a refusal, at most


def count(most: int, least: int = 1):
    """The type of an integer from `least` to `most`."""
    return Annotated[int, Field(ge=least, le=most)]


Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Steps = count(2**31, 0)  # of a training

# What pydantic says of Python's types, as a TOML or JSON file knows them.
WANTED = {
    "missing": "is missing", "extra_forbidden": "is not known",
    "tuple_type": "must be a list", "model_type": "must be a table", "dict_type": "must be a table",
    "int_type": "must be an integer", "bool_type": "must be true or false",
    "string_type": "must be a string", "float_type": "must be a number",
    "finite_number": "must be finite",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
}


class ConfigError(ValueError):
    """A configuration, artifact or image that cannot be used; the message is one short line."""

    def __init__(self, message: str):
        line = " ".join(message.split())
        super().__init__(line if len(line) <= MESSAGE else line[:MESSAGE - 4] + " ...")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def check_phases(recipe, *names: str):
    """ValueError unless the fields `names`, phases of a training, leave some of its `steps`."""
    first = sum(getattr(recipe, name) for name in names)
    if first >= recipe.steps:
        raise ValueError(f"{', '.join(names[:-1])} and {names[-1]} must be fewer than the "
                         f"{recipe.steps} steps together, not {first}")


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
    said = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if first["type"] in WANTED:
        said = WANTED[first["type"]].format(**first.get("ctx", {}))
    complete = first["type"] in ("value_error", "extra_forbidden")  # our own say what came
    came = "" if complete or isinstance(first["input"], dict) else f", not {shown(first['input'])}"
    field = ".".join(str(part) for part in first["loc"]
                     if part not in ("conv", "sum", "map", "cell"))
    raise ConfigError(": ".join(filter(None, (where, field, said))) + came)


def shown(value) -> str:
    """The value as a message shows it."""
    try:
        return f"{value!r:.60}"
    except ValueError:  # Python refuses to print huge integers
        return f"a {type(value).__name__} with an integer of thousands of digits"
