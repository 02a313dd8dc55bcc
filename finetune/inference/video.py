"""Skeletons and labels drawn over the recording they were predicted from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.inference.ethograms import Ethogram
from finetune.report.figures import COLOURS, colours_of
from pretrain.data.schema import Schema
from pretrain.errors import BadInput, refuse
from pretrain.readers.tracks import Tracks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

    from finetune.inference.recordings import Recording

RATE_TOLERANCE = 0.01


def videos_of(words: Sequence[str], recordings: Sequence[Recording]) -> dict[str, Path]:
    """The video of each recording that has one: the file of its name; one file and one recording
    belong together whatever they are called.

    Raises:
        BadInput: If PyAV is not installed, a file is not there or no recording's, or the recordings
            have no pixels to draw on.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        raise BadInput("--video needs one more package: pip install 'ethoray[video]'") from None
    files = [Path(word).expanduser() for word in words]
    names = [one.name for one in recordings]
    only_one = len(files) == len(names) == 1
    found = {names[0] if only_one else file.stem: file for file in files}
    errors = [f"there is no file {file}" for file in files if not file.is_file()]
    errors += [
        f"{file} is of no recording; they are called {', '.join(names[:20])}: name it like its own"
        for name, file in found.items()
        if name not in names
    ]
    if any(one.store is not None for one in recordings):
        errors.append("a store's poses may be scaled: give the tracker's own files as --poses")
    if recordings and len(recordings[0].schema.coordinates) != 2:
        errors.append("poses in space do not say where in the picture they are")
    refuse(errors, about="--video")
    return found


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A video's container and its stream of pictures."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadInput(f"{path} has no pictures")
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        raise BadInput(f"{path} cannot be read as a video: {error}") from error


def check_video(path: Path, *, frames: int, fps: float) -> None:
    """Looks whether a video can be that of poses with so many frames.

    Raises:
        BadInput: If it has other frames or another rate, or cannot be read.
    """
    with _opened(path) as (container, stream):
        rate = float(stream.average_rate or 0)
        number = sum(packet.size > 0 for packet in container.demux(stream))
    errors = []
    if number != frames:
        errors.append(
            f"it has {number:,} frames, the poses {frames:,}: give the very file that was tracked"
        )
    if abs(rate - fps) > RATE_TOLERANCE * fps:
        errors.append(
            f"it has {rate:g} frames/s, the poses {fps:g}: if the video is right, --fps {rate:g}"
        )
    refuse(errors, about=f"the video {path} does not fit the poses")


def draw_video(
    path: Path, source: Path, *, poses: Tracks, schema: Schema, ethograms: Sequence[Ethogram]
) -> None:
    """Writes the recording as MP4 (H.264): an animal a colour, and below the picture a line for
    each problem with what is predicted and how likely it is.

    Args:
        path: File to write.
        source: The recording.
        poses: In its pixels, a frame a picture.
        schema: Names the bones of ``poses``.
        ethograms: Of each problem, at the recording's rate.
    """
    import av

    bones = [tuple(schema.keypoints.index(name) for name in bone) for bone in schema.edges]
    with _opened(source) as (container, stream), av.open(str(path), "w") as drawn:
        stream.thread_type = "AUTO"
        out = drawn.add_stream(
            "libx264", rate=stream.average_rate, options={"crf": "23", "preset": "veryfast"}
        )
        out.pix_fmt = "yuv420p"
        for frame, position_MKX, *shown in zip(
            container.decode(stream), poses.position_TMKX, *map(_lines, ethograms), strict=False
        ):
            picture = _picture(frame.to_image(), position_MKX, bones, shown)
            if not out.codec_context.is_open:
                out.width, out.height = picture.size
            drawn.mux(out.encode(av.VideoFrame.from_image(picture)))
        drawn.mux(out.encode(None))


def _lines(ethogram: Ethogram) -> Iterator[list[tuple[str, str]]]:
    """Of every frame the texts to show, each with its colour."""
    problem, colours = ethogram.problem, colours_of(ethogram.problem)
    rows = zip(ethogram.shown_TC, ethogram.probabilities_TC, ethogram.labelled_T, strict=True)
    for shown_C, p_C, labelled in rows:
        texts = [
            (f"{problem.classes[c]} {p_C[c]:.2f}", colours[problem.classes[c]])
            for c in np.flatnonzero(shown_C)
        ]
        yield texts or [("none" if labelled else "no pose, no label", "#FFFFFF")]


def _picture(
    image: Image,
    position_MKX: np.ndarray,
    bones: Sequence[tuple[int, ...]],
    lines: Sequence[Sequence[tuple[str, str]]],
) -> Image:
    """One frame with what is drawn on it and the strip below; its sides are even, as H.264 wants
    them."""
    from PIL import Image as Images
    from PIL import ImageDraw, ImageFont

    width, height = image.size
    size = max(12, height // 25)  # px, of the letters
    step, thick = size + size // 2, max(1, height // 240)
    below = height + step * len(lines)
    picture = Images.new("RGB", (width + width % 2, below + below % 2))
    picture.paste(image)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for m, position_KX in enumerate(position_MKX):
        colour, seen_K = COLOURS[m % len(COLOURS)], np.isfinite(position_KX).all(-1)
        for bone in bones:
            if seen_K[list(bone)].all():
                draw.line([tuple(map(float, position_KX[k])) for k in bone], colour, thick)
        for x, y in position_KX[seen_K].tolist():
            draw.circle((x, y), 2 * thick, colour)
    for row, texts in enumerate(lines):
        x, y = size // 2, height + row * step + size // 4
        for text, colour in texts:
            draw.rectangle((x, y, x + size, y + size), colour)
            draw.text((x + size + size // 2, y), text, "#FFFFFF", font)
            x += 3 * size + round(draw.textlength(text, font))
    return picture
