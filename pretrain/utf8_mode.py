"""Python's UTF-8 mode, where the locale knows nothing but ASCII."""

from __future__ import annotations

import os
import sys


def restart_in_utf8_mode() -> None:
    """Starts this command again in Python's UTF-8 mode if it was started without (LC_ALL=C with
    PYTHONUTF8=0), where a path like ``Mäuse`` can be neither printed nor stored. Its processes
    inherit the mode."""
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
