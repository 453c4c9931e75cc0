"""What a run saw on its way, small enough to stand beside its published record: curves, and samples over training.

Beside `<stem>.json` stand `<stem>.csv.gz` (curves of at most `POINTS` points each) and `<stem>.png` (samples of at most
`MOMENTS` moments, a row each) or `<stem>.txt` (the same of texts), and `<stem>-<name>.png` of each of `PICTURES` that a
run has. The same run always gives the same bytes. Whoever reads them may not know who wrote them: nothing is trusted to
be small or well-formed.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.spec import BadInput

POINTS = 100  # of a curve
MOMENTS = 5  # of training in a strip, the end among them
#: What a run may show beside its samples, by the name of the picture.
PICTURES = {
    "neighbours": "Its samples that are nearest to training images, each before that image",
    "reconstructions": "Held-out images, each before what the model makes of its code",
    "interpolations": "Walks between samples, a row each, while the latents change evenly",
}

_GRID_ROWS = 8  # in a picture of 64 samples, where its metadata do not say how many `rows` it has
_COLOURS = {"L": 16, "RGB": 64}  # of a strip's palette: enough for the eye
_MOST_BYTES, _MOST_PIXELS = 2**20, 2**22  # that a reader takes

Curve = tuple[tuple[int, float], ...]  # (examples seen, value), in order; of `steps/...`: (step of the model, value)


def traces(run: Path) -> dict[str, bytes]:
    """What is worth keeping of a run's folder: suffix to its record's stem → content."""
    found = {}
    if (file := run / "curves.csv").is_file():
        found[".csv.gz"] = _pack(thin(_parse(file.read_text(encoding="utf-8"))))
    if pictures := _moments(run / "samples", ".png"):
        found[".png"] = _strip(pictures)
    if texts := _moments(run / "samples", ".txt"):
        found[".txt"] = "\n".join(
            f"=== {name}\n\n{file.read_text(encoding='utf-8')}" for name, file in texts.items()
        ).encode()
    for name in PICTURES:
        if (file := run / "samples" / f"{name}.png").is_file():
            found[f"-{name}.png"] = _palette(file.read_bytes())
    return found


# Curves --------------------------------------------------------------------------------------------------------------


def thin(curves: Mapping[str, Curve], points: int = POINTS) -> dict[str, Curve]:
    """Curves of at most `points` points: neighbours are averaged, at the mean of where they stood.

    >>> thin({"loss": ((0, 4.0), (10, 2.0), (20, 1.0), (30, 1.0))}, points=2)
    {'loss': ((5, 3.0), (25, 1.0))}
    """
    thinned = {}
    for name, curve in curves.items():
        size = math.ceil(len(curve) / points)
        buckets = [curve[start : start + size] for start in range(0, len(curve), size)]
        thinned[name] = tuple(
            (round(sum(x for x, _ in bucket) / len(bucket)), sum(value for _, value in bucket) / len(bucket))
            for bucket in buckets
        )
    return thinned


def read_curves(record: Path) -> dict[str, Curve]:
    """The curves beside a record, published or of a local run, where finite; empty where none were kept.

    Raises `BadInput` where the file is malformed or unpacks to more than a run can have written.
    """
    packed, plain = record.with_suffix(".csv.gz"), record.parent / "curves.csv"
    if packed.is_file():
        file, content = packed, _unpack(packed)
    elif record.name == "record.json" and plain.is_file():
        file, content = plain, plain.read_text(encoding="utf-8")
    else:
        return {}
    try:
        curves = _parse(content)
    except ValueError as error:
        raise BadInput(f"{file} holds no curves: {error}; each line is examples,name,value") from error
    finite = {name: tuple(point for point in curve if math.isfinite(point[1])) for name, curve in curves.items()}
    return {name: curve for name, curve in finite.items() if curve}


def _parse(content: str) -> dict[str, Curve]:
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for examples, name, value in list(csv.reader(content.splitlines()))[1:]:
        curves[name].append((int(examples), float(value)))
    return {name: tuple(points) for name, points in curves.items()}


def _pack(curves: Mapping[str, Curve]) -> bytes:
    buffer = io.StringIO()
    rows = [(examples, name, f"{value:.5g}") for name, curve in curves.items() for examples, value in curve]
    csv.writer(buffer, lineterminator="\n").writerows([("examples", "name", "value"), *rows])
    return gzip.compress(buffer.getvalue().encode(), mtime=0)


def _unpack(file: Path) -> str:
    try:
        with gzip.open(file) as stream:
            content = stream.read(_MOST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{file} is not a gzip file: {error}") from error
    if len(content) > _MOST_BYTES:
        raise BadInput(f"{file} unpacks to more than {_MOST_BYTES:,} bytes: thin its curves to {POINTS} points each")
    return content.decode("utf-8", errors="replace")


# Pictures ------------------------------------------------------------------------------------------------------------


def pictures_beside(record: Path) -> dict[str, Path]:
    """Where each of `PICTURES` of a published record lies, if there is one."""
    return {name: record.with_name(f"{record.stem}-{name}.png") for name in PICTURES}


def read_picture(file: Path) -> tuple[bytes, tuple[str, ...]] | None:
    """A PNG written anew from its pixels, and the moment that each of its rows shows; `None` where none was kept.

    Raises `BadInput` where it is not a PNG, or a huge one.
    """
    from PIL import Image, UnidentifiedImageError

    if not file.is_file():
        return None
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise BadInput(
                    f"{file} has {image.width} × {image.height} pixels: at most {_MOST_PIXELS:,} are allowed"
                )
            image.load()
            moments = str(image.info.get("moments", ""))
            return _png(image), tuple(moments.split("\n")) if moments else ()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{file} is not a picture: {error}") from error


def last_moment(file: Path) -> bytes | None:
    """The last row of a strip, the whole of another picture; `None` and `BadInput` as `read_picture`."""
    from PIL import Image

    if (found := read_picture(file)) is None:
        return None
    content, moments = found
    if len(moments) < 2:
        return content
    with Image.open(io.BytesIO(content)) as image:
        height = (image.height - 2) // len(moments)  # of a row, and the line above it
        return _png(image.crop((0, image.height - 2 - height, image.width, image.height)))


def read_text(file: Path) -> str | None:
    """A text of samples; `None` where none was kept."""
    return file.read_bytes()[:_MOST_BYTES].decode("utf-8", errors="replace") if file.is_file() else None


def _moments(samples: Path, suffix: str) -> dict[str, Path]:
    """`12,000 examples` → picture, evenly over training, and `end`: samples of the weights that validation chose."""
    during = sorted(file for file in samples.glob(f"*{suffix}") if file.stem.isdecimal())
    end, room = samples / f"final{suffix}", MOMENTS - 1
    if len(during) > room:
        during = [during[round(i * (len(during) - 1) / (room - 1))] for i in range(room)]
    found = {f"{int(file.stem):,} examples": file for file in during}
    return found | ({"end": end} if end.is_file() else {})


def _strip(pictures: Mapping[str, Path]) -> bytes:
    """The first row of each picture, one below the other; metadata say which moment each row shows."""
    from PIL import Image

    rows: list[Image.Image] = []
    for file in pictures.values():
        with Image.open(file) as picture:
            height = (picture.height - 2) // int(picture.info.get("rows", _GRID_ROWS))  # of a row and the line above
            rows.append(picture.convert("RGB").crop((0, 0, picture.width, height)))
    strip = Image.new("RGB", (rows[0].width, sum(row.height for row in rows) + 2), (127, 127, 127))
    for index, row in enumerate(rows):
        strip.paste(row, (0, index * row.height))
    return _palette(_png(strip), tuple(pictures))


def _palette(content: bytes, moments: Sequence[str] = ()) -> bytes:
    """The picture in few colours, of grey where it holds no other."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    red, green, blue = image.split()
    mode = "L" if red.tobytes() == green.tobytes() == blue.tobytes() else "RGB"
    few = image.convert(mode).quantize(_COLOURS[mode], dither=Image.Dither.NONE)
    return _png(few, moments)


def _png(image: object, moments: Sequence[str] = ()) -> bytes:
    from PIL import Image, PngImagePlugin

    assert isinstance(image, Image.Image)
    info = PngImagePlugin.PngInfo()
    if moments:
        info.add_text("moments", "\n".join(moments))
    buffer = io.BytesIO()
    clean = image.copy()
    clean.info.clear()  # nothing of what a stranger's file says beside its pixels
    clean.save(buffer, "PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()
