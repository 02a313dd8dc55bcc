"""Fetches the CalMS21 archives: pooch checks them, an interrupted download goes on where it
stopped."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm

from pretrain.errors import BadInput, refuse
from pretrain.readers.calms21.sources import unsafe_members

logger = logging.getLogger(__name__)

BASE_URL = "https://data.caltech.edu/api/records/s0vdx-0k302/files"
_PIECE_BYTES = 2**16  # what is lost at most when a connection breaks
_ATTEMPTS = 5  # without a byte in between
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Archive:
    """One file of the deposit (doi 10.22002/D1.1991)."""

    name: str
    md5: str


ARCHIVES: Mapping[str, Archive] = {
    "task1": Archive("task1_classic_classification.zip", "8a02654fddae28614ee24a6a082261b8"),
    "task2": Archive("task2_annotation_styles.zip", "c97e87e13e77ffb80c073e05c05a4683"),
    "task3": Archive("task3_new_behaviors.zip", "df59df02d069bab1cfc376cdc1a3925b"),
    "unlabeled": Archive("unlabeled_videos.zip", "35ab3acdeb231a3fe1536e38ad223b2e"),
}


def download(
    folder: str | Path,
    *,
    base_url: str = BASE_URL,
    tasks: Iterable[str] = tuple(ARCHIVES),
    archives: Mapping[str, Archive] = ARCHIVES,
    show_progress: bool = True,
    pause_s: float = 2.0,
) -> list[Path]:
    """Fetches archives of some tasks (task1, task2, task3, unlabeled) into a folder, where they
    stay packed; those that are there and whole are not fetched again.

    An archive is at ``base_url/NAME/content``. The first new attempt after a broken connection
    comes after ``pause_s``, each further one after twice as long.

    Raises:
        BadInput: If a task is unknown, the disk is too small, the address cannot be reached (what
            has come stays, for the next attempt), or an archive is not the one that was published
            or has members that would leave its folder.
    """
    names, folder = list(dict.fromkeys(tasks)), Path(folder).expanduser()
    refuse(
        [
            f"there is no archive {name!r}; there are {', '.join(archives)}"
            for name in names
            if name not in archives
        ],
        about="--download",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder {folder}: {error}") from error
    pooch.get_logger().setLevel(logging.WARNING)  # the bar says the same
    paths = []
    for task in names:
        archive = archives[task]
        url = f"{base_url}/{archive.name}/content"
        fetch = _ResumingDownloader(
            folder / f"{archive.name}.part", show_progress=show_progress, pause_s=pause_s
        )
        try:
            where = {"fname": archive.name, "path": folder}
            path = pooch.retrieve(url, f"md5:{archive.md5}", **where, downloader=fetch)
        except BadInput:
            raise
        except (requests.RequestException, OSError) as error:
            failed = f"cannot fetch {url}: {_reason(error)}"
            wanted = [archives[name] for name in names]
            raise BadInput(_by_hand(failed, folder, base_url, wanted)) from error
        except ValueError as error:  # pooch's word for a wrong checksum; it has removed the file
            raise BadInput(
                f"{url} is not the published archive, or was damaged on its way (MD5 is not "
                f"{archive.md5}); try again"
            ) from error
        refuse(unsafe_members(Path(path)), about=f"the archive {path} cannot be used")
        paths.append(Path(path))
    return paths


class _ResumingDownloader:
    """A downloader for pooch that stores what has come next to the target and asks only for the
    rest."""

    def __init__(self, part: Path, *, show_progress: bool, pause_s: float) -> None:
        self._part, self._show_progress, self._pause_s = part, show_progress, pause_s

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        failures, before = 0, self._received()
        while True:
            try:
                self._fetch_rest(url)
                break
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                failures = 1 if self._received() > before else failures + 1
                before = self._received()
                if failures >= _ATTEMPTS:
                    raise
                lost = f"{url}: connection lost at {before:,} bytes ({_reason(error)})"
                logger.warning("%s; trying again", lost)
                time.sleep(self._pause_s * 2 ** (failures - 1))
        self._part.replace(output_file)

    def _received(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _fetch_rest(self, url: str) -> None:
        received = self._received()
        headers = {"Accept-Encoding": "identity"}
        if received:
            headers["Range"] = f"bytes={received}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                if answer.headers.get("Content-Range", "").strip() == f"bytes */{received}":
                    return  # it was whole already
                self._part.unlink()
                raise requests.ConnectionError(
                    "what was fetched before is longer than the file; starting anew"
                )
            if answer.status_code >= 500 or answer.status_code == requests.codes.too_many_requests:
                raise requests.ConnectionError(
                    f"the server answered {answer.status_code} {answer.reason}"
                )
            answer.raise_for_status()
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {received}-"):
                received = 0  # the server sends all of it
            self._write(answer, received)

    def _write(self, answer: requests.Response, received: int) -> None:
        rest = int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        free = shutil.disk_usage(self._part.parent).free + (self._received() if not received else 0)
        if rest is not None and rest > free:
            raise BadInput(
                f"{self._part.parent}: {rest:,} bytes are to come for {self._part.stem}, {free:,} "
                "are free on that disk"
            )
        total = None if rest is None else received + rest
        with (
            self._part.open("ab" if received else "wb") as file,
            tqdm(
                total=total,
                initial=received,
                unit="B",
                unit_scale=True,
                desc=self._part.stem,
                disable=not self._show_progress,
            ) as bar,
        ):
            for piece in answer.iter_content(_PIECE_BYTES):
                file.write(piece)
                bar.update(len(piece))
        if total is not None and self._received() != total:
            raise requests.ConnectionError(f"{self._received():,} of {total:,} bytes came")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    text = str(error).split("\n")[0]
    if "Max retries exceeded" in text:
        return "no connection (is this machine on the internet?)"
    return text[:200]


def _by_hand(error: str, folder: Path, base_url: str, archives: Iterable[Archive]) -> str:
    lines = "\n".join(
        f"  {base_url}/{archive.name}/content  as {archive.name} (MD5 {archive.md5})"
        for archive in archives
    )
    return (
        f"{error}\nRun the same command again to go on where it stopped. Or download by "
        f"hand, put the archives into {folder.absolute()} "
        f"(packed or unpacked) and leave --download out:\n{lines}"
    )
