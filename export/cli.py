"""What every command line here shares: bad input is one line and exit code 2."""

import functools
import sys

from export.config import ConfigError


def one_line_errors(command):
    """Turns a :class:`ConfigError` into one line on stderr and exit code 2."""
    @functools.wraps(command)
    def wrapper(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
    return wrapper
