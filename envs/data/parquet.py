"""Parquet files in Hugging Face's layout: a column of encoded images and a column of classes."""

import json
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctm_rl.envs.data.folder import find_files, list_names
from ctm_rl.envs.data.images import EncodedImages, check_num_images
from ctm_rl.errors import printable

IMAGE_COLUMNS = ("image", "img", "pixel_values", "jpg", "jpeg", "png", "webp")
LABEL_COLUMNS = ("fine_label", "label", "labels", "cls", "class", "target")
IMAGE_TYPES, LABEL_TYPES = "encoded images (bytes)", "integers or words"
"""What these columns hold, for messages."""
CACHE_BYTES = 512 * 2**20
"""How much of what was read last is kept, encoded: the whole of a small data set."""
_MAX_INFLATION = 4
"""How many times larger than in the file the images of a row group may be: they are compressed already."""
_MIN_GROUP_BYTES = 128 * 2**20
"""A row group that is read whatever its size in the file."""
_MAX_BATCH = 64
"""Rows read before the size of what was read is looked at."""
_MAX_WORD_BYTES = 256 * 2**20
"""Of a column of words, uncompressed."""
_SAFE_PYARROW = (14, 0, 1)
"""Older ones unpickle what a file's schema holds (CVE-2023-47248)."""
_NUM_SAMPLED = 8
"""Images of the first row group whose kind is checked when files are opened."""


def find_parquet(folder: Path, names: tuple[str, ...]) -> list[Path] | None:
    """Finds the parquet files of a split, anywhere below a folder: ``train-*.parquet`` or ``train/*.parquet``.

    Args:
        folder: where to look.
        names: names of the split; the first that is found is used.

    Returns:
        The files in order; None where there are none.

    Raises:
        ValueError: a file's name is found in two folders, as of two data sets or two copies.
    """
    paths = [Path(path) for path in find_files(folder, (".parquet",))]
    for name in names:
        found = [
            path for path in paths if _is_named(path.stem, name) or (path.parent != folder and path.parent.name == name)
        ]
        if found:
            file, count = Counter(path.name for path in found).most_common(1)[0]
            if count > 1:
                folders = [str(path.parent.relative_to(folder)) for path in found if path.name == file]
                raise ValueError(
                    f"{printable(folder)} holds {printable(file)} in {count} folders ({list_names(folders)}): "
                    "name one of them, so that no image is counted twice."
                )
            return found
    return None


def read_parquet(
    paths: Sequence[Path], class_paths: Sequence[Path] | None = None, num_classes: int | None = None
) -> EncodedImages:
    """Opens parquet files; images are read on demand, with the whole row group around them.

    Args:
        paths: the files of a split, in order.
        class_paths: the files of the split that defines the classes; default: these.
        num_classes: how many classes there are; default: as many as the files' metadata names, or else as occur.

    Returns:
        The images, not yet decoded.

    Raises:
        ValueError: a file is damaged or lacks the columns, or ``pyarrow`` is missing.
    """
    rows = _Rows(paths)
    labels, words = rows.labels()
    if num_classes is None and words is None:
        num_classes = rows.num_named_classes()
    class_words: list[str] | None = None
    if num_classes is None or words is not None:
        other_paths = None if class_paths == paths else class_paths
        every, class_words = (labels, words) if other_paths is None else _Rows(other_paths).labels()
        num_found = int(every.max(initial=-1)) + 1
        if words is not None:
            labels, num_found = number_words(words, class_words or [], labels, printable(paths[0]))
        num_classes = num_found if num_classes is None else num_classes
    source = f"{paths[0].parent} ({paths[0].name}{' and so on' if len(paths) > 1 else ''})"
    images = EncodedImages(labels, num_classes, source, rows.image_bytes)
    images.class_names = None if words is None else sorted(class_words or [])
    images.check_kinds(range(min(len(images), rows.num_first, _NUM_SAMPLED)))
    return images


def choose_column(
    names: tuple[str, ...], available: Mapping[str, str], readable: Sequence[str], source: str | Path, types: str
) -> str:
    """Returns the first of these columns that a table has and that can be read.

    Args:
        names: of the columns, best one first.
        available: the table's columns and their types.
        readable: the columns that can be read.
        source: where the table is, for the message.
        types: what the column must hold, for the message.

    Raises:
        ValueError: the table has none of them.
    """
    column = next((name for name in names if name in readable), None)
    if column is None:
        listed = list_names([f"{name}: {printable(kind, 40)}" for name, kind in available.items()], 12)
        raise ValueError(f"{printable(source)} has no column {' or '.join(names)} of {types}; it has {listed}.")
    return column


def number_words(
    words: Sequence[str], class_words: Sequence[str], places: np.ndarray, source: str
) -> tuple[np.ndarray, int]:
    """Numbers classes that are given as words, in alphabetical order.

    Args:
        words: the words of a split, each once.
        class_words: the words of the split that defines the classes.
        places: for each image the place of its word among ``words``, [N].
        source: where the images come from, for the message.

    Returns:
        The class of each image [N], and how many classes there are.

    Raises:
        ValueError: a word is none of ``class_words``.
    """
    number = {word: index for index, word in enumerate(sorted(class_words))}
    if unknown := next((word for word in words if word not in number), None):
        raise ValueError(f"{source} has a class '{printable(unknown, 60)}' that the training split does not have.")
    return np.array([number[word] for word in words], np.int64)[places], len(number)


class _Rows:
    """The rows of several files, numbered consecutively; the row groups read last are kept."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._files, columns = _open_files(paths)
        self._image_column, self._label_column = columns
        groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        self._groups = groups
        lengths = [self._files[f].metadata.row_group(g).num_rows for f, g in groups]
        check_num_images(sum(lengths), printable(paths[0].parent))
        self.num_first = lengths[0] if lengths else 0
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        # Of a structure of bytes and a path the bytes alone.
        self._leaves = [_leaf_of(file, self._image_column) for file in self._files]
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._cached_bytes = 0
        self._damaged: dict[int, str] = {}

    def labels(self) -> tuple[np.ndarray, list[str] | None]:
        """The classes of all rows [N]; where they are words, their places among the words, and the words."""
        columns = [self._label_chunks(file, path) for file, path in zip(self._files, self._paths, strict=True)]
        chunks = [chunk for column in columns for chunk in column]
        is_words = [hasattr(chunk, "dictionary") for chunk in chunks]
        if any(is_words) and not all(is_words):
            raise ValueError(f"column {self._label_column} of {printable(self._paths[0])} is words in some files only.")
        number: dict[str, int] = {}
        parts: list[np.ndarray] = []
        for chunk in chunks:
            if any(is_words):
                places = [number.setdefault(word, len(number)) for word in chunk.dictionary.to_pylist()]
                parts.append(np.array(places, np.int64)[chunk.indices.to_numpy(zero_copy_only=False)])
            else:
                parts.append(chunk.to_numpy(zero_copy_only=False))
        labels = np.concatenate([np.empty(0, np.int64), *parts])
        if len(labels) != self._starts[-1]:
            raise ValueError(f"{printable(self._paths[0].parent)} has a damaged parquet file; download it again.")
        # A word that only stands in a dictionary is no class.
        if not number:
            return labels, None
        used, labels = np.unique(labels, return_inverse=True)
        words = list(number)
        return labels, [words[place] for place in used.tolist()]

    def _label_chunks(self, file: Any, path: Path) -> list[Any]:
        """The classes in a file: arrays of integers, or of words as places in a dictionary."""
        import pyarrow

        where = f"column {self._label_column} of {printable(path)}"
        kind = file.schema_arrow.field(self._label_column).type
        if pyarrow.types.is_dictionary(kind):
            groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
            sizes = [_column_of(group, self._label_column).total_uncompressed_size for group in groups]
            if sum(sizes) > _MAX_WORD_BYTES:
                raise ValueError(f"{where} holds words of {sum(sizes):,} bytes, more than {_MAX_WORD_BYTES:,}.")
        try:
            column = file.read([self._label_column], use_threads=False).column(0)
            if column.null_count:
                reason = f"of its {len(column)} rows {column.null_count} have no class"
                raise ValueError(f"{where} must hold {LABEL_TYPES}, none of them missing; {reason}.")
            if not pyarrow.types.is_dictionary(kind):
                column = column.cast(pyarrow.int64())
            elif not _is_text(kind.value_type):
                column = column.cast(kind.value_type).cast(pyarrow.int64())
        except (OSError, MemoryError, pyarrow.ArrowException) as error:
            raise ValueError(f"{where} is damaged ({printable(error)}); download it again.") from error
        return column.chunks

    def num_named_classes(self) -> int | None:
        """How many classes are named in the metadata written by Hugging Face's library; None: it names none."""
        try:
            value: Any = json.loads((self._files[0].schema_arrow.metadata or {}).get(b"huggingface", b"null"))
        except (ValueError, RecursionError):
            return None
        for key in ("info", "features", self._label_column, "names"):
            value = value.get(key) if isinstance(value, dict) else None
        return len(value) if isinstance(value, list) and value else None

    def image_bytes(self, index: int) -> bytes:
        """An image, encoded; empty where the file has none, which is then a broken image."""
        group = int(np.searchsorted(self._starts, index, "right")) - 1
        value = self._group(group)[index - int(self._starts[group])].as_py()
        # Either a structure of bytes and a path, which is not followed, or the bytes.
        return (value.get("bytes") if isinstance(value, dict) else value) or b""

    def _group(self, group: int) -> Any:
        """The encoded images of a row group, from the cache or from the file."""
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        if group in self._damaged:
            raise ValueError(self._damaged[group])
        try:
            column = self._read_group(*self._groups[group])
        except ValueError as error:
            self._damaged[group] = str(error)
            raise
        self._cache[group] = column
        self._cached_bytes += column.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return column

    def _read_group(self, file: int, group: int) -> Any:
        """The encoded images of a row group, read from the file in batches, as far as they are not too large."""
        import pyarrow

        metadata, name = self._files[file].metadata.row_group(group), printable(self._paths[file].name)
        sizes = _column_of(metadata, self._leaves[file])
        in_file = min(sizes.total_compressed_size, self._paths[file].stat().st_size)
        most = max(_MIN_GROUP_BYTES, _MAX_INFLATION * in_file)
        # In a dictionary a small file may repeat a large image: even then a batch is a quarter of the most.
        num_rows = min(_MAX_BATCH, max(1, most // max(1, 4 * sizes.total_uncompressed_size)))
        chunks, num_bytes = [], sizes.total_uncompressed_size
        try:
            if num_bytes <= most:
                num_bytes = 0
                batches = self._files[file].iter_batches(num_rows, [group], [self._leaves[file]], use_threads=False)
                for batch in batches:
                    chunks.append(batch.column(0))
                    num_bytes += chunks[-1].nbytes
                    if num_bytes > most:
                        break
        except (OSError, MemoryError, pyarrow.ArrowException) as error:
            raise ValueError(f"is in a damaged row group of {name} ({printable(error)})") from error
        if num_bytes > most:
            raise ValueError(f"is in a row group that is inflated to more than {most:,} bytes")
        column = pyarrow.chunked_array(chunks)
        if len(column) != metadata.num_rows:
            raise ValueError(f"is in a damaged row group of {name}")
        return column


def import_parquet(path: str | Path) -> Any:
    """Imports ``pyarrow.parquet``.

    Args:
        path: what is to be read, for the message.

    Raises:
        ValueError: it is missing, or of a version that runs code that a file holds.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"reading {printable(path)} needs pyarrow: pip install pyarrow.") from error
    if tuple(int(part) for part in pyarrow.__version__.split(".")[:3]) < _SAFE_PYARROW:
        safe = ".".join(map(str, _SAFE_PYARROW))
        raise ValueError(
            f"reading {printable(path)} needs pyarrow {safe} or newer, here is {pyarrow.__version__}, which runs "
            "code that a file holds: pip install --upgrade pyarrow."
        )
    return parquet


def _open_files(paths: Sequence[Path]) -> tuple[list[Any], tuple[str, str]]:
    """Opens files; returns them with the names of the columns of images and of classes."""
    parquet = import_parquet(paths[0])
    import pyarrow

    files: list[Any] = []
    images: list[set[str]] = []
    labels: list[set[str]] = []
    for path in paths:
        try:
            file = parquet.ParquetFile(path, memory_map=True)
            kinds = {field.name: field.type for field in file.schema_arrow}
            words = [name for name in LABEL_COLUMNS if name in kinds and _is_text(kinds[name])]
            if words:  # as places in a dictionary: a long word that is often repeated stays small
                file = parquet.ParquetFile(path, memory_map=True, read_dictionary=words)
        except (OSError, MemoryError, UnicodeError, pyarrow.ArrowException) as error:
            raise ValueError(
                f"{printable(path.parent)} has a damaged parquet file ({printable(error)}); download it again."
            ) from error
        files.append(file)
        images.append({name for name, kind in kinds.items() if is_bytes(kind)})
        labels.append({name for name, kind in kinds.items() if _is_label(kind)})
    available = {field.name: str(field.type) for field in files[0].schema_arrow}
    columns = [
        choose_column(names, available, list(set.intersection(*readable)), paths[0], types)
        for names, readable, types in (
            (IMAGE_COLUMNS, images, IMAGE_TYPES),
            (LABEL_COLUMNS, labels, LABEL_TYPES),
        )
    ]
    return files, (columns[0], columns[1])


def is_bytes(kind: Any) -> bool:
    """Tells whether values of a type are bytes, or structures with a field ``bytes`` of them; never a path to open."""
    from pyarrow import types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else kind
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _is_text(kind: Any) -> bool:
    """Whether values of a type are words."""
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def _is_label(kind: Any) -> bool:
    """Whether values of a type are classes: integers, booleans, words, or places in a dictionary of such."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_integer(kind) or types.is_boolean(kind) or _is_text(kind)


def _leaf_of(file: Any, name: str) -> str:
    """The path of a column's values: of a structure those of its field ``bytes``."""
    from pyarrow import types

    return f"{name}.bytes" if types.is_struct(file.schema_arrow.field(name).type) else name


def _column_of(group: Any, leaf: str) -> Any:
    """The sizes of a column in a row group."""
    for index in range(group.num_columns):
        if (column := group.column(index)).path_in_schema == leaf:
            return column
    raise ValueError(f"is in a row group without a column {leaf}")


def _is_named(stem: str, name: str) -> bool:
    """Whether a file belongs to a split: ``train``, ``train-00000-of-00001`` or ``train_0``, but not ``training``."""
    return stem == name or (stem.startswith(name) and stem[len(name)] in "-_.")
