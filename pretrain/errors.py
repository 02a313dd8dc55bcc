"""The one error that is addressed to the person who typed the command."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable

from pretrain.redact import redact
from pretrain.utf8_mode import restart_in_utf8_mode

_NOT_WRITABLE = {
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
FULL = {errno.ENOSPC, errno.EDQUOT}
"""Error numbers of a disk without room."""


class BadInput(ValueError):
    """What the user gave is wrong: the message says what, where and what is allowed.

    Entry files turn it into exit status 2 and the bare message, without a traceback.
    """


class RunFailed(RuntimeError):
    """The run cannot go on, and trying again would end the same way: the message says why and what
    to change.

    Entry files turn it into exit status 1 and the bare message, without a traceback.
    """


def refuse(errors: Iterable[str], *, about: str) -> None:
    """Raises one :class:`BadInput` that lists every error, or returns where there is none. Of more
    than twenty the rest is counted.

    Args:
        errors: One sentence each.
        about: What was examined ("the recipe contrastive.yaml"), the head of the message.

    Raises:
        BadInput: If there is at least one error.
    """
    listed = list(dict.fromkeys(errors))
    if len(listed) > 20:
        listed[20:] = [f"and {len(listed) - 20} more"]
    if listed:
        lines = "\n".join(f"  - {error}" for error in listed)
        raise BadInput(f"{about}:\n{lines}")


def error_if(wrong: object, sentence: str) -> list[str]:
    """One of the errors for :func:`refuse`, or none."""
    return [sentence] if wrong else []


def exit_status(command: Callable[[], None]) -> int:
    """Runs an entry's work and returns the exit status of the command contract.

    Returns:
        0 done; 2 what the user gave is wrong (message on standard error, no traceback);
        1 the run failed (message or traceback on standard error); 130 interrupted from the
        keyboard.
    """
    restart_in_utf8_mode()
    try:
        command()
    except BadInput as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        return 2
    except RunFailed as error:
        print(redact(f"the run failed: {error}"), file=sys.stderr)
        return 1
    except BrokenPipeError:  # `ethoray prepare check STORE | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno in FULL:
            print(redact(f"the run failed: {error}: make room there"), file=sys.stderr)
            return 1
        if error.errno in _NOT_WRITABLE:
            print(
                redact(f"error: {error}: choose another place, or allow access to it"),
                file=sys.stderr,
            )
            return 2
        return _unexpected()
    except Exception:
        return _unexpected()
    return 0


def _unexpected() -> int:
    text = redact(traceback.format_exc())  # of Ray's errors and others', addresses and all
    logging.getLogger(__name__).error("the run failed\n%s", text)
    return 1
