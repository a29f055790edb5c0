"""The errors that this package raises on purpose.

::

    DigitsError              base of all; exit code 1
    ├── InputError           what the user gave is wrong; exit code 2
    │   ├── DataError        a data file
    │   ├── SubmissionError  a submission file
    │   ├── RunError         a run folder
    │   ├── DeviceError      a device that is not there
    │   └── AccessError      Kaggle does not let this user in
    ├── TrainingError        the training failed
    └── KaggleError          Kaggle refused, failed, or could not be reached

A message says what arrived and where, what was expected, and what to do next. A part that would say nothing new is left
out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DigitsError(Exception):
    """Base of all errors that are raised on purpose. The message is one paragraph for the user."""

    exit_code = 1


class InputError(DigitsError):
    """The input is wrong."""

    exit_code = 2


class DataError(InputError):
    """A data file is missing or malformed."""


class SubmissionError(InputError):
    """A submission file is malformed, or would overwrite another one."""


class RunError(InputError):
    """A run folder is missing, unfinished, or belongs to another training."""


class DeviceError(InputError):
    """The requested device is not there."""


class AccessError(InputError):
    """Kaggle does not let this user in: there are no credentials, the rules are not accepted, or a name is wrong."""


class TrainingError(DigitsError):
    """The training failed."""


class KaggleError(DigitsError):
    """Kaggle refused, failed, or could not be reached."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the most similar known name, as a question with a space in front; "" if none is similar.

    >>> did_you_mean("fsat", ["flash", "fast"])
    ' Did you mean fast?'
    """
    by_small_letters = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), by_small_letters, n=1)
    return f" Did you mean {by_small_letters[close[0]]}?" if close else ""
