"""The data room: fixed splits, pure batches, downloads that start again cleanly."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import inspect
import io
import json
import pickle
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from files import CONFIGS
from mnist_files import idx, small_mnist

from benchmark.data.base import SPLITS, InMemory, SplitName, fingerprint
from benchmark.data.dialogue import CornellDialogues, ShakespeareDialogue
from benchmark.data.download import Remote, fetch
from benchmark.data.images import BinaryMnist, Cifar10, Digits, FashionMnist, Images, Mnist, hold_out, read_idx
from benchmark.data.points import GaussianGrid
from benchmark.data.speakers import Speakers
from benchmark.data.stacked import StackedMnist
from benchmark.data.synthetic import SyntheticText
from benchmark.data.text import PyDocs, Text, Text8, TinyShakespeare, WikiText2
from benchmark.data.tokens import Characters, Words
from benchmark.spec import BadInput


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits(Path("unused"))


def same(one, other) -> bool:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def check_batches(data: InMemory) -> None:
    """What every dataset promises of its training batches."""
    x = data.batch(seed=3, step=7, batch_size=5).x
    assert x.shape == (5, *data.spec.shape)
    assert x.dtype == torch.int64
    assert x.min() >= 0
    assert x.max() < data.spec.levels
    assert same(data.batch(3, 7, 5), data.batch(3, 7, 5))
    assert not torch.equal(x, data.batch(3, 8, 5).x)
    assert not torch.equal(x, data.batch(4, 7, 5).x)
    whole = list(islice(data.batches(seed=1, batch_size=4), 6))
    resumed = list(islice(data.batches(seed=1, batch_size=4, start=2), 4))
    assert all(same(a, b) for a, b in zip(whole[2:], resumed, strict=True))
    check_batches_elsewhere(data)


def check_batches_elsewhere(data: InMemory) -> None:
    """They are made where the training split is, which stays there, and take the same from no other generator."""
    here = data.batch(seed=3, step=7, batch_size=5)
    assert data.on(torch.device("cpu")) is data
    devices = [torch.device("meta"), *([torch.device("cuda", 0)] if torch.cuda.is_available() else [])]
    for device in devices:
        moved = data.on(device)
        state = torch.get_rng_state()
        there = moved.batch(seed=3, step=7, batch_size=5)
        assert torch.equal(state, torch.get_rng_state())
        for mine, theirs in zip(here, there, strict=True):
            if mine is not None:
                assert (theirs.device, theirs.shape, theirs.dtype) == (device, mine.shape, mine.dtype)
        if device.type == "cuda":
            assert same(here, [x if x is None else x.cpu() for x in there])
        for name in SPLITS:
            assert data.split(name).x.device.type == "cpu"
            assert moved.split(name).x.device == (device if name == "train" else torch.device("cpu"))
            assert moved.split(name).x.dtype == data.split(name).x.dtype


def test_a_split_too_large_for_what_is_free_stays_on_the_cpu(digits, monkeypatch):
    gpu, size = torch.device("cuda", 0), digits.split("train").x.nbytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * size - 1, 80 * 2**30))
    assert digits.on(gpu) is digits


def check_description(data: InMemory) -> None:
    """What every dataset tells a record."""
    described = json.loads(json.dumps(data.describe()))
    assert {"name", "source", "licence", "citation", "publishable"} <= described.keys()
    for name in SPLITS:
        assert described["splits"][name]["n"] == len(data.split(name).x)
        assert len(described["splits"][name]["sha256"]) == 64


def check_text(data: Text) -> None:
    """What every text promises besides."""
    check_batches(data)
    check_description(data)
    for name in SPLITS:
        split = data.split(name)
        text = data.decode(split.x)
        assert torch.equal(data.encode(text), split.x.long())
        assert (split.characters, split.bytes) == (len(text), len(text.encode()))
    window = data.decode(data.batch(seed=0, step=0, batch_size=1).x[0])
    assert window in data.decode(data.split("train").x)


FILES = sorted((CONFIGS / "data").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_configuration_lists_every_option(path):
    config = yaml.safe_load(path.read_text())
    module, _, name = config.pop("target").rpartition(".")
    data = getattr(importlib.import_module(module), name)
    assert issubclass(data, InMemory)
    assert path.stem == data.card.name
    kinds = {GaussianGrid: "points", StackedMnist: "stack", Speakers: "labelled_text"}
    kinds |= {ShakespeareDialogue: "dialogue", CornellDialogues: "dialogue"}
    assert config.pop("modality") == ("text" if issubclass(data, Text) else kinds.get(data, "image"))
    config.pop("evaluation", None)
    assert list(config.pop("minutes")) == ["smoke", "quick", "standard", "full"]
    assert config.pop("before", {}).keys() <= config.keys()
    first, *options = inspect.signature(data).parameters.values()
    assert first.name == "root"
    assert config == {option.name: option.default for option in options}


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def check_visits(data: Images, batch_size: int) -> None:
    """Batches straddle the ends of epochs, and visit all training examples equally often but for the last epoch."""
    n = len(data.split("train").x)
    data.split("train").labels.copy_(torch.arange(n))  # names the examples
    seen: Counter = Counter()
    for batch in islice(data.batches(seed=0, batch_size=batch_size), 3 * n // batch_size):
        seen.update(batch.condition.tolist())
    assert len(seen) == n
    assert max(seen.values()) - min(seen.values()) <= 1


def test_digits_split(digits):
    described = digits.describe()["splits"]
    assert {name: split["n"] for name, split in described.items()} == {"train": 1437, "validation": 180, "test": 180}
    assert [described[name]["sha256"][:16] for name in SPLITS] == [
        "8f5bffd8c5d47e8d",
        "dced0b443d2ab81f",
        "f1c8c7950617b8d4",
    ]
    assert digits.spec.dims == 64
    assert torch.cat([digits.split(name).x for name in SPLITS]).max() == digits.spec.levels - 1


def test_digits_is_partitioned_and_stratified(digits):
    from sklearn.datasets import load_digits

    splits = [digits.split(name) for name in SPLITS]
    ours = Counter(bytes(image.numpy()) for split in splits for image in split.x)
    assert ours == Counter(image.astype("uint8").tobytes() for image in load_digits().images)
    totals = torch.stack([torch.bincount(split.labels, minlength=10) for split in splits]).sum(0)
    for split in splits:
        expected = totals * len(split.x) / totals.sum()
        assert (torch.bincount(split.labels, minlength=10) - expected).abs().max() <= 1.5


def test_digits_keeps_the_promises(digits):
    check_batches(digits)
    check_description(digits)
    assert digits.batch(0, 0, 64).condition.shape == (64,)


@pytest.mark.parametrize("batch_size", [64, 1000, 2000])
def test_every_example_is_visited_equally_often(batch_size):
    check_visits(Digits(Path("unused")), batch_size)


@pytest.fixture(scope="session")
def mnist(stored) -> Mnist:
    return stored(Mnist)


@pytest.fixture(scope="session")
def binary_mnist(stored) -> BinaryMnist:
    return stored(BinaryMnist)


def test_mnist(mnist):
    check_batches(mnist)
    check_description(mnist)
    assert [len(mnist.split(name).x) for name in SPLITS] == [55_000, 5_000, 10_000]
    described = mnist.describe()["splits"]
    assert [described[name]["sha256"][:16] for name in SPLITS] == [
        "02bf4323080f7fc7",
        "af19b39f1362781e",
        "a0863a96c44e5666",
    ]
    assert torch.bincount(mnist.split("validation").labels).min() > 400
    assert mnist.spec.levels == 256
    assert mnist.split("train").x.dtype == torch.uint8


def test_binary_mnist_is_fixed_for_evaluation(binary_mnist, data_root):
    check_batches(binary_mnist)
    check_description(binary_mnist)
    assert binary_mnist.spec.levels == 2
    again = BinaryMnist(Path(data_root))
    for name in SPLITS:
        assert torch.equal(again.split(name).x, binary_mnist.split(name).x)
        assert binary_mnist.split(name).x.max() == 1


def test_binary_mnist_is_drawn_afresh_for_training(binary_mnist, mnist):
    levels, ones = torch.zeros(256), torch.zeros(256)
    for step in range(10):
        x = binary_mnist.batch(seed=0, step=step, batch_size=1000).x
        grey = mnist.batch(seed=0, step=step, batch_size=1000).x
        levels += torch.bincount(grey.flatten(), minlength=256)
        ones += torch.bincount(grey[x == 1], minlength=256)
    p = torch.arange(256) / 255
    deviation = (ones / levels - p).abs()
    assert (deviation <= 5 * (p * (1 - p) / levels).sqrt()).all()  # exactly 0 at grey levels 0 and 255

    def picture(step: int) -> dict[bytes, bytes]:
        """What each image of a step looks like, by its grey original."""
        grey, x = mnist.batch(0, step, 11_000).x, binary_mnist.batch(0, step, 11_000).x
        return {
            bytes(a.to(torch.uint8).numpy()): bytes(b.to(torch.uint8).numpy()) for a, b in zip(grey, x, strict=True)
        }

    first, later = picture(0), picture(5)  # a fifth of the first epoch, and of the second
    both = first.keys() & later.keys()
    assert len(both) > 1000
    assert sum(first[image] == later[image] for image in both) < 0.01 * len(both)


def test_the_whole_training_file_trains_in_papers_recipes(binary_mnist, data_root):
    whole = BinaryMnist(Path(data_root), whole=True)
    check_batches(whole)
    sizes = {name: len(whole.split(name).x) for name in SPLITS}
    assert sizes == {"train": 60_000, "validation": 5_000, "test": 10_000}
    for name in ("validation", "test"):
        assert torch.equal(whole.split(name).x, binary_mnist.split(name).x)
    assert torch.equal(whole.split("train").x[-5_000:], whole.split("validation").x)
    assert whole.batch(0, 0, 60_000).condition.bincount().tolist() == whole.split("train").labels.bincount().tolist()
    assert whole.trains_on_validation
    assert not binary_mnist.trains_on_validation


def test_random_hold_out_of_the_fetched_sets_is_pinned():
    for n, data in ((60_000, FashionMnist), (50_000, Cifar10)):
        kept, held = hold_out(torch.arange(n), data.validation, seed=0)
        assert fingerprint(kept, held) == data.split_sha256
        assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(n))


# Formats on disk, on files made here ------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_packed_or_not(tmp_path, packed):
    small, arrays = small_mnist(tmp_path, packed)
    data = small(tmp_path)
    check_batches(data)
    check_description(data)
    assert [len(data.split(name).x) for name in SPLITS] == [24, 6, 10]
    assert np.array_equal(data.split("test").x[:, 0], arrays["t10k-images-idx3-ubyte"])
    assert np.array_equal(data.split("test").labels, arrays["t10k-labels-idx1-ubyte"])
    kept = {bytes(image.numpy()) for name in ("train", "validation") for image in data.split(name).x}
    assert kept == {image.tobytes() for image in arrays["train-images-idx3-ubyte"]}


@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_file_is_named_and_left_alone(tmp_path, packed):
    small, _ = small_mnist(tmp_path, packed)
    path = next((tmp_path / Mnist.folder).glob("t10k-images*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=f"{path.name} has checksum sha256:[0-9a-f]+, must be sha256:"):
        small(tmp_path)
    assert path.exists()


def test_an_unpacked_file_whose_content_nobody_published_is_not_read(tmp_path):
    small: Any = small_mnist(tmp_path, packed=False)[0]
    folder = tmp_path / Mnist.folder
    packed = {file.name: gzip.compress(file.read_bytes(), mtime=0) for file in folder.iterdir()}

    class Fashion(small):
        files: ClassVar = {name: (hashlib.sha256(content).hexdigest(), None) for name, content in packed.items()}

    with pytest.raises(
        BadInput, match=r"train-images-idx3-ubyte cannot be verified.*put train-images-.*\.gz beside it"
    ):
        Fashion(tmp_path)
    for name, content in packed.items():  # as torchvision leaves them, side by side: the packed ones are read
        (folder / f"{name}.gz").write_bytes(content)
        (folder / name).write_bytes(b"not what the archive holds")
    assert len(Fashion(tmp_path).split("test").x) == 10


def test_every_file_of_fashion_mnist_has_a_checksum_or_is_refused(tmp_path):
    for name, (packed, plain) in FashionMnist.files.items():
        assert len(packed) == 64
        assert plain is None
        path = tmp_path / FashionMnist.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(idx(np.zeros((3, 28, 28), np.uint8)))
    with pytest.raises(BadInput, match="cannot be verified"):
        FashionMnist(tmp_path)


def test_digits_that_another_version_of_their_package_changed_are_refused(monkeypatch):
    from sklearn import datasets

    digits = datasets.load_digits()
    digits.images[7, 3, 3] += 1
    monkeypatch.setattr(datasets, "load_digits", lambda: digits)
    with pytest.raises(BadInput, match=r"digits has SHA-256 [0-9a-f]+, must be"):
        Digits(Path("unused"))


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\1", idx(np.zeros((3, 2), np.uint8))[:-1]])
def test_a_broken_idx_file_is_refused(tmp_path, content):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="broken is not a whole idx file"):
        read_idx(path)


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_is_read_from_the_folder_or_the_archive(tmp_path, packed):
    random = np.random.default_rng(0)
    contents, checksums, pixels = {}, {}, {}
    for name in Cifar10.files:
        pixels[name] = random.integers(0, 256, (4, 3072), dtype=np.uint8)
        batch = {b"data": pixels[name], b"labels": [3, 1, 4, 1], b"batch_label": name.encode()}
        contents[name] = pickle.dumps(batch)
        checksums[name] = "md5:" + hashlib.md5(contents[name]).hexdigest()
    archive = tmp_path / Cifar10.remote.path
    if packed:
        with tarfile.open(archive, "w:gz") as file:
            for name, content in contents.items():
                member = tarfile.TarInfo(f"{Cifar10.folder}/{name}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    else:
        (tmp_path / Cifar10.folder).mkdir()
        for name, content in contents.items():
            (tmp_path / Cifar10.folder / name).write_bytes(content)

    class Small(Cifar10):
        remote = Remote(Cifar10.remote.path, (), sha256(archive) if packed else "sha256:none")
        files = checksums
        validation = 5
        split_sha256 = fingerprint(*hold_out(torch.arange(20), 5, seed=0))

    data = Small(tmp_path)
    check_batches(data)
    check_description(data)
    assert data.spec.shape == (3, 32, 32)
    assert [len(data.split(name).x) for name in SPLITS] == [15, 5, 4]
    assert np.array_equal(data.split("test").x[2, 1].flatten(), pixels["test_batch"][2, 1024:2048])  # green
    assert data.split("test").labels.tolist() == [3, 1, 4, 1]
    damaged = archive if packed else tmp_path / Cifar10.folder / "data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(BadInput, match=f"{damaged.name} has checksum"):
        Small(tmp_path)


# Downloads, from a server on this machine -------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves `CONTENT` under each path of `Handler`, and counts requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: Counter = Counter()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests[self.path] += 1
        if self.path == "/missing" or (self.path == "/busy-once" and self.server.requests[self.path] == 1):
            self.send_error(404 if self.path == "/missing" else 503)
            return
        content = CONTENT[::-1] if self.path == "/other" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path == "/truncated" else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def remote(*urls: str) -> Remote:
    return Remote("set/file.bin", urls, "sha256:" + hashlib.sha256(CONTENT).hexdigest())


def test_a_download_is_verified_and_not_repeated(server, tmp_path):
    for _ in range(2):
        assert fetch(tmp_path, remote(f"{server.url}/good")).read_bytes() == CONTENT
    assert server.requests == {"/good": 1}
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "file.bin"]


@pytest.mark.parametrize("bad", ["truncated", "other", "missing"])
def test_a_bad_download_leaves_nothing_and_says_what_to_do(server, tmp_path, bad):
    wanted = remote(f"{server.url}/{bad}")
    with pytest.raises(BadInput) as error:
        fetch(tmp_path, wanted)
    message = str(error.value)
    assert "\n" not in message
    for part in ("file.bin", wanted.urls[0], str(tmp_path / "set" / "file.bin"), wanted.checksum):
        assert part in message
    assert list(tmp_path.iterdir()) == []
    assert fetch(tmp_path, remote(wanted.urls[0], f"{server.url}/good")).read_bytes() == CONTENT  # the next mirror


def test_a_busy_server_is_asked_again(server, tmp_path):
    assert fetch(tmp_path, remote(f"{server.url}/busy-once")).read_bytes() == CONTENT
    assert server.requests == {"/busy-once": 2}


def test_no_network_says_where_to_put_the_file(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(BadInput, match=r"cannot fetch file.bin from http.* by hand; its checksum is sha256:"):
        fetch(tmp_path / "data", remote(f"{server.url}/good"))
    assert not (tmp_path / "data").exists()


def test_an_interrupted_download_leaves_nothing_and_what_a_killed_one_left_is_overwritten(
    server, tmp_path, monkeypatch
):
    def interrupted(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(tmp_path, remote(f"{server.url}/good"))
    assert list(tmp_path.iterdir()) == []
    partial = tmp_path / "set" / "file.bin.part"
    partial.parent.mkdir()
    partial.write_bytes(CONTENT[:1000] + b"rubbish")
    (tmp_path / "set" / "file.bin.lock").touch()
    assert fetch(tmp_path, remote(f"{server.url}/good")).read_bytes() == CONTENT
    assert [path.name for path in partial.parent.iterdir()] == ["file.bin"]


def test_processes_that_want_one_file_fetch_it_once(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=(tmp_path, remote(f"{server.url}/good"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == {"/good": 1}
    assert (tmp_path / "set" / "file.bin").read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_checked_and_kept(tmp_path):
    path = tmp_path / "set" / "file.bin"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(BadInput, match=r"file.bin has checksum sha256:.* must be sha256:.* replace it"):
        fetch(tmp_path, remote())
    assert path.read_bytes() == b"mine"


def test_a_folder_in_the_place_of_a_file_is_said_so(tmp_path):
    (tmp_path / "set" / "file.bin").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"cannot read .*file.bin: .*; make it a readable file"):
        fetch(tmp_path, remote())


def test_a_folder_that_was_there_before_a_failed_download_stays(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(BadInput, match="cannot fetch"):
        fetch(tmp_path, remote())
    assert [path.name for path in tmp_path.rglob("*")] == ["set"]


def test_a_root_that_cannot_be_written_is_said_so(tmp_path):
    (tmp_path / "set").write_text("a file where a folder should be")
    with pytest.raises(BadInput, match=r"cannot write .*file.bin"):
        fetch(tmp_path, remote())


# Text ------------------------------------------------------------------------------------------------------------


def test_pydocs_is_there_everywhere():
    data = PyDocs(Path("unused"), context=64)
    check_text(data)
    assert data.spec.shape == (64,)
    assert data.split("train").characters > 300_000
    assert data.describe()["publishable"] is False
    assert "Python" in data.describe()["note"]


def test_tinyshakespeare(stored):
    data = stored(TinyShakespeare)
    check_text(data)
    assert data.spec.levels == 65
    assert [len(data.split(name).x) for name in SPLITS] == [948_084, 55_770, 111_540]
    described = data.describe()["splits"]
    assert [described[name]["sha256"][:16] for name in SPLITS] == [
        "5559b80f0dc9dbf2",
        "8b4bd6cd36fbd781",
        "c54f3753a4e6e3c3",
    ]
    assert data.decode(data.split("train").x[:14]) == "First Citizen:"


def test_strange_character_is_refused():
    with pytest.raises(BadInput, match="'\u2603' is not one of the characters of pydocs"):
        PyDocs(Path("unused")).encode("snow\u2603man")


@pytest.mark.parametrize(
    ("option", "value"), [("context", 0), ("context", -3), ("context", 10**9), ("order", "rnadom")]
)
@pytest.mark.parametrize("cls", [PyDocs, TinyShakespeare, Text8, WikiText2, SyntheticText])
def test_options_that_no_text_fits_are_refused_before_a_file_is_read(cls, option, value):
    given = f"{option}={value}" if option == "context" else repr(value)
    with pytest.raises(BadInput, match=given):
        cls.check(**{option: value})


def test_a_window_fits_into_every_split():
    shortest = min(len(PyDocs(Path("unused")).split(name).x) for name in SPLITS)
    PyDocs.check(context=shortest)
    refusals: tuple[Callable[..., object], ...] = (PyDocs.check, partial(PyDocs, Path("unused")))
    for refuse in refusals:
        with pytest.raises(BadInput, match=f"context={shortest + 1} does not fit pydocs: give 1 to {shortest}"):
            refuse(context=shortest + 1)
        with pytest.raises(BadInput, match="unknown order 'rnadom'; did you mean 'random'"):
            refuse(order="rnadom")


def test_what_is_said_of_the_shortest_splits_is_true(stored):
    for cls in (SyntheticText, TinyShakespeare):
        data = stored(cls)
        assert cls.shortest == min(len(part) for name in SPLITS for part in data.split(name).parts())


def test_an_empty_split_is_refused():
    class Tiny(Text):
        card = PyDocs.card

    texts: dict[SplitName, list[str]] = {"train": ["abc"], "validation": [""], "test": ["a"]}
    with pytest.raises(BadInput, match="the validation split of pydocs is empty"):
        Tiny(texts, Characters(("a", "b", "c"), "tiny"), context=1, order="random")


def test_text8_is_cut_at_90_and_95_percent(tmp_path):
    text = "the quick brown fox jumps over a lazy dog " * 100
    archive = tmp_path / "text8" / "text8.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("text8", text)

    class Small(Text8):
        remote = Remote(Text8.remote.path, (), sha256(archive))

    data = Small(tmp_path, context=16)
    check_text(data)
    assert data.spec.levels == 27
    assert [len(data.split(name).x) for name in SPLITS] == [3780, 210, 210]
    assert "".join(data.decode(data.split(name).x) for name in SPLITS) == text


def test_wikitext2_counts_words_and_characters(tmp_path):
    texts = {
        "train": " \n = Robert <unk> = \n \n Robert is an actor . \n" * 9,
        "valid": " an actor is <unk> \n",
        "test": " Robert \n is an café \n",
    }
    archive = tmp_path / "wikitext2" / "wikitext-2-v1.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in texts.items():
            file.writestr(f"wikitext-2/wiki.{name}.tokens", text)

    class Small(WikiText2):
        remote = Remote(WikiText2.remote.path, (), sha256(archive))

    data = Small(tmp_path, context=5)
    check_batches(data)
    check_description(data)
    assert data.tokens == Words((".", "<eos>", "<unk>", "=", "Robert", "actor", "an", "is"))
    for name, text in zip(SPLITS, texts.values(), strict=True):
        split = data.split(name)
        assert len(split.x) == len(text.split()) + text.count("\n")
        assert (split.characters, split.bytes) == (len(text), len(text.encode()))
        assert data.decode(split.x) == text.replace("café", "<unk>")  # not a word of the training split
