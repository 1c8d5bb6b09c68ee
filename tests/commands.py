"""Commands as a user gives them."""

import pytest

from sim.cli import main


def run(*arguments) -> int:
    """The exit code of `hexlane` with these arguments."""
    with pytest.raises(SystemExit) as stop:
        main([str(each) for each in arguments])
    return stop.value.code
