"""LISBET in a process of its own interpreter: one line of JSON for every line it is sent."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pretrain.errors import BadInput


class Lisbet:
    """A script of this folder, run by an interpreter that has the package ``lisbet``.

    Args:
        python: The interpreter.
        script: Name of the script's file.
        words: Its arguments.

    Raises:
        BadInput: If it cannot be started; from every answer, if it has ended.
    """

    def __init__(self, python: str, script: str, *words: str) -> None:
        self._python = python
        # LISBET talks much; a pipe that nobody reads would stop it.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the process is
        command = [python, str(Path(__file__).with_name(script)), *words]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                bufsize=1,
            )
        except OSError as error:
            raise BadInput(f"--lisbet {python}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()

    def answer(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise BadInput(f"--lisbet {self._python}: it ended: {self._errors.read()[-500:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self) -> dict[str, Any]:
        """Sends an empty line, which means go on, and returns the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            self._process.stdin.write("\n")
        return self.answer()
