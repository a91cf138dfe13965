"""Writes a module's weights into RLlib's checkpoints in our own format too, which is read without pickles."""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.fs
import torch
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn

from ctm_rl.checkpoints import store


class PlainlySavedModule(TorchRLModule):
    """A module whose network is also written as safetensors and JSON, whatever algorithm saves it.

    ``Policy.from_checkpoint`` and ``load_model`` read that from a checkpoint of ``Algorithm.save_to_path`` or ``save``.
    """

    def save_to_path(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        path: str | Path | None = None,
        *,
        state: Mapping[str, Any] | None = None,
        filesystem: pyarrow.fs.FileSystem | None = None,
        **kwargs: Any,
    ) -> str:
        """Saves the module as RLlib does, and its network in our format in the folder ``ctm_rl`` beside that.

        Args:
            path: a directory, or a URL if there is no file system.
            state: to be saved in place of the current one.
            filesystem: where the path is.
            **kwargs: RLlib's.

        Returns:
            The path.
        """
        saved = super().save_to_path(path, state=state, filesystem=filesystem, **kwargs)
        place = (
            pyarrow.fs.FileSystem.from_uri(saved if path is None else str(path))[0]
            if filesystem is None
            else filesystem
        )
        folder = PurePosixPath(saved) / store.BESIDE_RLLIB
        place.create_dir(str(folder), recursive=True)
        with tempfile.TemporaryDirectory() as scratch:
            store.write_files(Path(scratch), self._describe(state or self.state_dict()))
            for file in sorted(Path(scratch).iterdir()):
                with place.open_output_stream(str(folder / file.name)) as stream:
                    stream.write(file.read_bytes())
        return saved

    def _describe(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """The content of the checkpoint, with these weights of the module, tensors or RLlib's arrays."""
        raise NotImplementedError


def weights_of(network: nn.Module, weights: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """The weights of a network among those of a module, in the network's own types and shapes.

    Args:
        network: part of the module.
        weights: of the module, tensors or RLlib's arrays, in which whole numbers are smaller, and scalars numbers.
        prefix: what comes before the names of the network.
    """
    return {
        name: _to_tensor(weights[f"{prefix}{name}"]).to(own.dtype).reshape(own.shape)
        for name, own in network.state_dict().items()
    }


def _to_tensor(value: Any) -> Tensor:
    """A tensor, an array or a number as a tensor; arrays of Ray's object store cannot be written to, and are copied."""
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
