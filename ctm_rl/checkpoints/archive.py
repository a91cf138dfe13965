"""Checks the archive of a ``.pt`` file before PyTorch reads it: PyTorch compares no checksum and caps no size."""

import pickletools
import zipfile
from collections.abc import Iterable
from pathlib import Path

MAX_SETTINGS_BYTES = 64 * 2**20
"""Largest part of an archive that is not tensors."""
MAX_OBJECTS = 2_000_000
"""Largest number of containers and of objects that are referred to later; each takes up to 100 bytes of memory."""
_CHUNK = 2**20
_BUILDERS = frozenset(
    (
        "collections OrderedDict",
        "argparse Namespace",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char")),
        *(f"torch {kind}Storage" for kind in ("Byte", "Bool", "ComplexFloat", "ComplexDouble")),
        "_codecs encode",
    )
)
"""What builds tensors and settings; others that PyTorch allows, such as ``bytearray``, reserve memory of any size."""
_COUNTED = ("EMPTY_", "TUPLE", "PUT", "BINPUT", "LONG_BINPUT", "REDUCE", "NEWOBJ", "MARK")
"""Beginnings of the names of instructions that are counted."""


class Refused(ValueError):
    """An archive holds something other than weights and plain settings."""


def check_archive(path: Path, others: Iterable[str] = ()) -> None:
    """Reads a whole archive once: checksums, sizes, and what its settings would call.

    Args:
        path: the file.
        others: globals that are allowed beside those of tensors and settings, as ``module name``.

    Raises:
        OSError: the file cannot be read.
        Refused: it would call something else.
        ValueError: it is damaged, no archive, or declares more than it holds; the message is a clause.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive, as PyTorch has written since version 1.6")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError("it declares more bytes than it has")
            for member in members:
                _check_member(archive, member)
            settings = [member for member in members if member.filename.endswith("/data.pkl")]
            if len(settings) != 1 or settings[0].file_size > MAX_SETTINGS_BYTES:
                raise ValueError(f"it must have one data.pkl of at most {MAX_SETTINGS_BYTES:,} bytes")
            _check_instructions(archive.read(settings[0]), _BUILDERS | set(others))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError) as error:
        raise ValueError(f"its archive is damaged ({error})") from error


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Reads a member of an archive, which compares its checksum."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError("it is compressed or encrypted, as no file of PyTorch is")
    with archive.open(member) as file:
        while file.read(_CHUNK):
            pass


def _check_instructions(settings: bytes, allowed: frozenset[str] | set[str]) -> None:
    """Refuses a pickle that calls anything but what is allowed, or makes more objects than settings need."""
    num_objects = 0
    for instruction, argument, _ in pickletools.genops(settings):
        name = instruction.name
        if name in ("GLOBAL", "INST") and argument not in allowed:
            raise Refused(f"GLOBAL {str(argument).replace(' ', '.')}")
        if name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            raise Refused(f"instruction {name}")
        num_objects += name.startswith(_COUNTED)
        if num_objects > MAX_OBJECTS:
            raise ValueError(f"it holds more than {MAX_OBJECTS:,} settings; save model_state_dict and args alone")
