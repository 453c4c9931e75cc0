"""Images: small sets in memory as one tensor, each with one fixed split."""

from __future__ import annotations

import gzip
import pickle
import tarfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from benchmark.data.base import SPLITS, Card, InMemory, Modes, Split, SplitName, fingerprint, generator
from benchmark.data.download import Remote, fetch, verify
from benchmark.spec import BadInput, Batch, DataSpec


class Images(InMemory):
    """Labelled images. A training batch is a stretch of an endless walk over the training split.

    The walk visits a fresh permutation each epoch, and a batch may straddle two epochs: after any number of steps no
    example was seen more than once oftener than another.
    """

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        index, labels = self._visit(seed, step, batch_size)
        return Batch(x=self.split("train").x[index].long(), condition=labels)

    @property
    def modes(self) -> Modes:
        """The classes, with their shares of the training split."""
        labels = self.split("train").labels
        assert labels is not None
        assert self.spec.classes is not None
        counts = torch.bincount(labels.cpu(), minlength=self.spec.classes).double()
        return Modes(counts / counts.sum())

    def _visit(self, seed: int, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """Indices and labels `[B]` of the training examples that this step sees, where those are."""
        labels = self.split("train").labels
        assert labels is not None
        index = visits(len(labels), seed, step * batch_size, batch_size).to(labels.device)
        return index, labels[index]


class Digits(Images):
    """scikit-learn's digits: 1,797 images of 8×8 with 17 levels, embedded in that package, so `root` goes unused."""

    card = Card(
        name="digits",
        source="sklearn.datasets.load_digits: the test set of UCI's optical recognition of handwritten digits",
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, doi:10.24432/C50P49",
    )

    content_sha256: ClassVar[str] = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"  # of all
    split_sha256: ClassVar[str] = "970448c5cc2c2b324ad89ea96ae4866516fe0a61c5d8cf9f0abbc66669d985dd"  # its indices

    def __init__(self, root: Path) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.from_numpy(digits.images.astype(np.uint8))[:, None]  # [1797, 1, 8, 8]
        labels = torch.from_numpy(digits.target.astype(np.int64))  # [1797]
        check_content(self.card.name, self.content_sha256, x, labels)
        rest, test = hold_out(torch.arange(len(x)), 180, seed=0, labels=labels)
        train, validation = hold_out(rest, 180, seed=1, labels=labels)
        check_split(self.card.name, self.split_sha256, train, validation, test)
        splits: dict[SplitName, Split] = {
            "train": Split(x[train], labels[train]),
            "validation": Split(x[validation], labels[validation]),
            "test": Split(x[test], labels[test]),
        }
        super().__init__(DataSpec((1, 8, 8), 17, "grid", DataSpec.label(10)), splits)


class TrainAndTest(Images):
    """8-bit images that come as a training and a test file. Validation is a fixed random part of the training file."""

    validation: ClassVar[int]
    split_sha256: ClassVar[str]  # of the indices into the training file

    def __init__(self, train: Split, test: Split) -> None:
        kept, held = hold_out(torch.arange(len(train.x)), self.validation, seed=0)
        check_split(self.card.name, self.split_sha256, kept, held)
        assert train.labels is not None
        splits: dict[SplitName, Split] = {
            "train": Split(train.x[kept], train.labels[kept]),
            "validation": Split(train.x[held], train.labels[held]),
            "test": test,
        }
        shape = tuple(train.x.shape[1:])
        super().__init__(DataSpec(shape, 256, "grid", DataSpec.label(10)), splits)


class Mnist(TrainAndTest):
    """MNIST, 70,000 grey images of 28×28. Files lie where torchvision looks for them, compressed or not."""

    card = Card(
        name="mnist",
        source="http://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0",
        citation="LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document Recognition",
    )
    folder: ClassVar[str] = "MNIST/raw"
    mirrors: ClassVar[tuple[str, ...]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    )
    #: SHA-256 of each file as it is fetched, and of what it holds.
    files: ClassVar[dict[str, tuple[str, str | None]]] = {
        "train-images-idx3-ubyte": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        "train-labels-idx1-ubyte": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        "t10k-images-idx3-ubyte": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        "t10k-labels-idx1-ubyte": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    }
    validation = 5000
    split_sha256 = "93542c91c4fb0c153f99eeaa17ac9e13feaedc52389f451e213dcda457fc1b5f"

    def __init__(self, root: Path) -> None:
        super().__init__(train=self._read(root, "train"), test=self._read(root, "t10k"))

    def _read(self, root: Path, part: str) -> Split:
        x = read_idx(self._file(root, f"{part}-images-idx3-ubyte"))[:, None]  # [N, 1, 28, 28]
        return Split(x, labels=read_idx(self._file(root, f"{part}-labels-idx1-ubyte")).long())

    def _file(self, root: Path, name: str) -> Path:
        """The verified file, the packed one if it is there. Raises `BadInput` where only an unpacked one is, and what
        it must hold is not known."""
        packed, plain = self.files[name]
        path = root / self.folder / name
        archive = Remote(
            f"{self.folder}/{name}.gz", tuple(f"{mirror}{name}.gz" for mirror in self.mirrors), f"sha256:{packed}"
        )
        if not path.exists() or (root / archive.path).exists():
            return fetch(root, archive)
        if plain is None:
            raise BadInput(
                f"{path} cannot be verified, for no checksum of the unpacked file is published: put {name}.gz beside "
                f"it, whose checksum is {archive.checksum}, or remove it to have that fetched"
            )
        verify(path, f"sha256:{plain}")
        return path


class BinaryMnist(Mnist):
    """MNIST with pixels 0 or 1: a pixel of grey level v is 1 with probability v/255.

    Training batches are binarised afresh at every step. Each split, the training split included (a reference set for
    metrics), is binarised once, under a fixed seed: protocol "dynamic binarisation, fixed test set". With `whole` the
    training split holds all 60,000 images of the training file, those of validation too.
    """

    card = Card(
        name="binary_mnist",
        source=Mnist.card.source,
        licence=Mnist.card.licence,
        citation=f"{Mnist.card.citation}; binarised as in Salakhutdinov and Murray 2008",
        note="training batches are binarised afresh at every step, each split once under a fixed seed",
    )
    binary_sha256: ClassVar[tuple[str, str, str]] = (  # of the splits' pixels
        "f8d7c32e1347807f120a86ab9439539f8b397952e3d89606a158744eb1d7817a",
        "fbcf7ab807435a9101c434e2e5643980f6b7e921ee11d30eebbd60d23c957fc8",
        "52c7e6388856fadec1351eeb7a4ddaabc187f314856dbaddfe20e588d25c87d3",
    )

    def __init__(self, root: Path, whole: bool = False) -> None:
        super().__init__(root)
        self.trains_on_validation = whole
        grey_splits = [self.split(name).x for name in (("train", "validation") if whole else ("train",))]
        self._grey = torch.cat(grey_splits)
        self.spec = replace(self.spec, levels=2)
        for seed, (name, pinned) in enumerate(zip(SPLITS, self.binary_sha256, strict=True)):
            grey = self._splits[name]
            # numpy's legacy generator: its stream is frozen (NEP 19). An integer below 255 is less than v with
            # probability v/255 exactly.
            draw = np.random.RandomState(seed).randint(0, 255, size=grey.x.shape, dtype=np.uint8)
            self._splits[name] = replace(grey, x=(torch.from_numpy(draw) < grey.x).to(torch.uint8))
            check_content(f"{self.card.name} ({name})", pinned, self._splits[name].x)
        if whole:
            self._splits["train"] = joined(self._splits["train"], self._splits["validation"])

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        index, labels = self._visit(seed, step, batch_size)
        grey = self._grey[index]
        draw = torch.randint(255, grey.shape, dtype=torch.uint8, generator=generator(seed, step, 1))
        return Batch(x=(draw.to(grey.device) < grey).long(), condition=labels)

    def on(self, device: torch.device) -> Self:
        there = super().on(device)
        there._grey = there._grey.to(there.split("train").x.device)
        return there


def joined(one: Split, other: Split) -> Split:
    """Both, one behind the other."""
    assert one.labels is not None
    assert other.labels is not None
    return Split(torch.cat([one.x, other.x]), torch.cat([one.labels, other.labels]))


class FashionMnist(Mnist):
    """Fashion-MNIST: articles of clothing in MNIST's format."""

    card = Card(
        name="fashion_mnist",
        source="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        citation="Xiao, Rasul and Vollgraf 2017, Fashion-MNIST, https://arxiv.org/abs/1708.07747",
    )
    folder = "FashionMNIST/raw"
    mirrors = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    files: ClassVar = {  # of the unpacked files no checksum is published
        "train-images-idx3-ubyte": ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", None),
        "train-labels-idx1-ubyte": ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", None),
        "t10k-images-idx3-ubyte": ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", None),
        "t10k-labels-idx1-ubyte": ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", None),
    }


class Cifar10(TrainAndTest):
    """CIFAR-10, 60,000 colour images of 32×32, from torchvision's folder or from the archive itself."""

    card = Card(
        name="cifar10",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated",
        citation="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    )
    remote: ClassVar = Remote(
        path="cifar-10-python.tar.gz",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        checksum="sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    )
    folder: ClassVar[str] = "cifar-10-batches-py"
    files: ClassVar[dict[str, str]] = {  # the last one is the test set
        "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
        "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
        "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "md5:40351d587109b95175f43aff81a1287e",
    }
    validation = 5000
    split_sha256 = "35209ba8d8825866a2ef0bd85540b29c5f959d0a93cc970d2c62dc6ce5e143f8"

    def __init__(self, root: Path) -> None:
        *train, test = self._batches(root)
        x, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
        super().__init__(train=Split(x, labels), test=Split(*test))

    def _batches(self, root: Path) -> list[tuple[Tensor, Tensor]]:
        paths = [root / self.folder / name for name in self.files]
        if all(path.exists() for path in paths):
            for path, checksum in zip(paths, self.files.values(), strict=True):
                verify(path, checksum)
            return [read_cifar(path.read_bytes()) for path in paths]
        with tarfile.open(fetch(root, self.remote)) as archive:
            members = [archive.extractfile(f"{self.folder}/{name}") for name in self.files]
            return [read_cifar(member.read()) for member in members if member is not None]


def read_idx(path: Path) -> Tensor:
    """The array in an idx file of bytes, gzipped or not, uint8 (format: http://yann.lecun.com/exdb/mnist/)."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        sizes = np.frombuffer(content, dtype=">u4", count=content[3], offset=4)
        body = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)
    except (IndexError, ValueError) as error:
        raise BadInput(f"{path} is not a whole idx file: delete it and fetch it again") from error
    return torch.from_numpy(body.copy())  # a copy is writable


def read_cifar(content: bytes) -> tuple[Tensor, Tensor]:
    """Images `[N, 3, 32, 32]` uint8 and labels `[N]` in a batch file. It is a pickle, so verify it before."""
    batch = pickle.loads(content, encoding="bytes")
    x = np.array(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
    return torch.from_numpy(x), torch.tensor(batch[b"labels"])


def hold_out(among: Tensor, n: int, seed: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Splits indices `among` into the rest and `n` random ones, both sorted; stratified where `labels` are given.

    The shuffled examples are laid end to end, class by class, and the held-out ones are picked from that line at even
    distances: each class gives its share, rounded. numpy's legacy generator has a frozen stream (NEP 19).
    """
    line = np.random.RandomState(seed).permutation(among.numpy())
    if labels is not None:
        line = line[np.argsort(labels.numpy()[line], kind="stable")]
    picked = np.arange(n) * len(line) // n
    rest = np.delete(line, picked)
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(line[picked]))


def check_content(name: str, pinned: str, *tensors: Tensor) -> None:
    """Refuses data that are not, value by value, those that published numbers stand on."""
    found = fingerprint(*tensors)
    if found != pinned:
        raise BadInput(f"{name} has SHA-256 {found}, must be {pinned}: its source is not the known one")


def check_split(name: str, pinned: str, *indices: Tensor) -> None:
    """Refuses a split that is not, index by index, the one that published numbers stand on."""
    found = fingerprint(*indices)
    if found != pinned:
        raise BadInput(f"the split of {name} has SHA-256 {found}, must be {pinned}: its source is not the known one")


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order `[n]` in which one epoch visits the training examples."""
    return torch.randperm(n, generator=generator(seed, epoch))


def visits(n: int, seed: int, first: int, count: int) -> Tensor:
    """Entries `first` to `first + count` of the endless walk over `n` examples, `[count]`."""
    parts = []
    while count > 0:
        epoch, offset = divmod(first, n)
        part = permutation(n, seed, epoch)[offset : offset + count]
        parts.append(part)
        first += len(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
