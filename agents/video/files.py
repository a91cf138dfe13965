"""Video files: MP4 by PyAV, GIF and animated WebP by Pillow, as the file's suffix says."""

import contextlib
import importlib.util
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image

from ctm_rl.agents.evaluation.frames import pad
from ctm_rl.errors import UserError

MP4, GIF, WEBP = ".mp4", ".gif", ".webp"
SUFFIXES = (MP4, GIF, WEBP)
INSTALL = 'pip install "ctm-rl[video]"'
"""What installs the writer of MP4 files."""
_MIN_GIF_MS = 20
"""Browsers show frames of a GIF that are to last less for a tenth of a second."""


def has_mp4() -> bool:
    """Whether MP4 files can be written."""
    return importlib.util.find_spec("av") is not None


def check_file(file: Path, *, overwrite: bool = False) -> None:
    """Refuses a file that cannot become a video.

    Raises:
        UserError: its suffix is none of ``SUFFIXES``, its writer is not installed, or it exists.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {str(file)!r}.")
    if file.suffix.lower() == MP4 and not has_mp4():
        raise UserError(f"{file} needs PyAV, which is not installed: {INSTALL}; {GIF} and {WEBP} need nothing.")
    if file.is_dir() or (file.exists() and not overwrite):
        way_out = "name a file" if file.is_dir() else "--overwrite replaces it"
        raise UserError(f"--out {file} exists; {way_out}, or name another one.")


@contextlib.contextmanager
def writing(file: Path, fps: float, hint: str = "") -> Iterator[Callable[[np.ndarray], None]]:
    """Writes a video, frame by frame; only a whole one gets its name, and replaces a file that has it.

    Args:
        file: the video; folders that are missing are created.
        fps: frames per second.
        hint: what to do about a file that cannot be written.

    Yields:
        What takes the frames, [H, W, 3] of uint8; those of another size than the first are brought to it.

    Raises:
        UserError: the file cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with partial.open("xb") as stream:
            writer = _writer(file.suffix.lower(), stream, fps)
            yield writer.add
            writer.finish()
        partial.replace(file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}{hint}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


class _Writer(Protocol):
    """Writes one video."""

    def add(self, frame: np.ndarray) -> None:
        """Adds a frame."""
        ...

    def finish(self) -> None:
        """Writes what is left."""
        ...


def _writer(suffix: str, stream: IO[bytes], fps: float) -> _Writer:
    """The writer of a kind of file."""
    return Mp4Writer(stream, fps) if suffix == MP4 else AnimationWriter(stream, fps, suffix)


class Mp4Writer:
    """Writes H.264 in MP4, which every browser plays.

    Args:
        stream: where to, open for writing, and seekable.
        fps: frames per second.
        preset: of x264: how much time is spent on small files.
    """

    def __init__(self, stream: IO[bytes], fps: float, preset: str = "veryfast") -> None:
        self._stream, self._fps, self._preset = stream, fps, preset
        self._container: Any = None

    def add(self, frame: np.ndarray) -> None:
        """Adds a frame, [H, W, 3]; sizes of the video are even."""
        from av import VideoFrame

        if self._container is None:
            self._container = self._open(frame)
        frame = pad(frame, *self._size)
        odd = frame.shape[0] % 2, frame.shape[1] % 2
        if any(odd):
            frame = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
        self._container.mux(self._video.encode(VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))

    def finish(self) -> None:
        """Writes what is left."""
        if self._container is not None:
            self._container.mux(self._video.encode())
            self._container.close()

    def _open(self, frame: np.ndarray) -> Any:
        """Begins the video with the size of its first frame."""
        import av

        height, width = frame.shape[:2]
        self._size = width, height
        container = av.open(self._stream, "w", format="mp4")
        self._video: Any = container.add_stream("libx264", rate=Fraction(self._fps).limit_denominator(1000))
        self._video.width, self._video.height = width + width % 2, height + height % 2
        self._video.pix_fmt = "yuv420p"  # browsers play no other
        self._video.codec_context.thread_count = 1
        self._video.options = {"crf": "20", "preset": self._preset}
        return container


class AnimationWriter:
    """Writes an animated GIF or WebP.

    Pillow takes all frames at once; until then they are kept compressed.

    Args:
        stream: where to.
        fps: frames per second; a GIF has at most 50.
        suffix: of the file.
    """

    def __init__(self, stream: IO[bytes], fps: float, suffix: str) -> None:
        self._stream, self._suffix = stream, suffix
        milliseconds = max(1, round(1000 / fps))
        self._milliseconds = max(_MIN_GIF_MS, milliseconds) if suffix == GIF else milliseconds
        self._packed: list[bytes] = []
        self._size = 0, 0

    def add(self, frame: np.ndarray) -> None:
        """Adds a frame, [H, W, 3]."""
        if not self._packed:
            self._size = frame.shape[1], frame.shape[0]
        self._packed.append(zlib.compress(pad(frame, *self._size).tobytes(), 1))

    def finish(self) -> None:
        """Writes the file."""
        if not self._packed:
            return
        first, *rest = self._packed
        options = {"optimize": False} if self._suffix == GIF else {"quality": 80, "method": 2}
        self._unpack(first).save(
            self._stream,
            format=self._suffix[1:].upper(),
            save_all=True,
            append_images=[_Frames(rest, self._unpack)] if rest else [],
            duration=self._milliseconds,
            loop=0,
            **options,
        )

    def _unpack(self, packed: bytes) -> Image.Image:
        """A frame; in a GIF it has 256 colours of its own."""
        image = Image.frombytes("RGB", self._size, zlib.decompress(packed))
        return image.quantize(256, Image.Quantize.FASTOCTREE) if self._suffix == GIF else image


class _Frames:
    """Compressed frames in the form of one animated image, of which Pillow unpacks one at a time."""

    def __init__(self, packed: Sequence[bytes], unpack: Callable[[bytes], Image.Image]) -> None:
        self._packed, self._unpack = packed, unpack
        self.n_frames = len(packed)
        self.seek(0)

    def seek(self, place: int) -> None:
        """Goes to a frame."""
        if not 0 <= place < self.n_frames:
            raise EOFError
        self._place, self._image = place, self._unpack(self._packed[place])

    def tell(self) -> int:
        """The number of the frame."""
        return self._place

    def __getattr__(self, name: str) -> Any:
        """Everything else is that of the frame."""
        return getattr(self._image, name)
