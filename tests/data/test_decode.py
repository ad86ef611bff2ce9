"""Decoding: every format, mode and fault."""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from plusx.data import Preprocessing, read_image
from plusx.data.decode import read_thumbnail
from plusx.data.reading import Limits, Reading
from plusx.data.remarks import ANIMATION, OWN_RANGE, PAGES, PROFILE, Remarks
from plusx.errors import UnreadableImage, UsageError


def ramp(height: int = 12, width: int = 16) -> np.ndarray:
    """(H, W, 3) uint8 whose pixels all differ from their neighbours a little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 10, y * 12, 255 - x * 5 - y * 5], axis=2).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def reason(path: Path | str, **options: Any) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_image(path, **options)
    assert caught.value.path == str(path)
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 300
    return caught.value.reason


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "webp", "gif", "jpg", "jfif"])
def test_formats(tmp_path: Path, extension: str) -> None:
    options: dict[str, object] = {"lossless": True} if extension == "webp" else {}
    options |= {"quality": 95, "subsampling": 0} if extension in ("jpg", "jfif") else {}
    path = save(tmp_path / f"x.{extension}", Image.fromarray(ramp()), **options)
    got = read_image(path)
    assert (got.shape, got.dtype) == ((12, 16, 3), np.uint8)
    assert got.flags.writeable
    assert got.flags.c_contiguous
    close = {"jpg": 8, "jfif": 8}.get(extension, 0)
    assert np.abs(got.astype(int) - ramp()).max() <= close


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, extension: str) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[:8, 16:], upright[8:, 16:] = 80, 160, 240
    stored = {  # what a camera writes so that its tag 274 (EXIF 2.3) makes it upright again
        1: upright,
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    path = save(tmp_path / f"x.{extension}", image, exif=exif)
    got = read_image(path)
    assert got.shape == (16, 24, 3)
    assert np.abs(got[:, :, 0].astype(int) - upright).max() < 30
    assert read_image(path, channels=1).shape == (16, 24, 1)


def test_damaged_exif_does_not_lose_the_image(tmp_path: Path) -> None:
    junk = b"Exif\0\0II*\0" + b"\xff" * 40
    path = save(tmp_path / "x.jpg", Image.fromarray(ramp()), exif=junk)
    assert read_image(path).shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 70, (70, 70, 70)),
        ("LA", (0, 255), (0, 0, 0)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (100, 51), (224, 224, 224)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 255, 0, 51), (204, 255, 204)),
    ],
)
def test_modes_become_rgb(
    tmp_path: Path, mode: str, value: object, expected: tuple[int, int, int]
) -> None:
    path = save(tmp_path / "x.png", Image.new(mode, (3, 2), value))
    got = read_image(path)
    assert got.shape == (2, 3, 3)
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2, 1])
    plain = read_image(save(tmp_path / "p.png", image))
    red, green, blue, white = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    assert plain[0].tolist() == [list(c) for c in (red, green, blue, green)]
    one = read_image(save(tmp_path / "one.png", image, transparency=1))
    assert one[0].tolist() == [list(c) for c in (red, white, blue, white)]
    each = read_image(save(tmp_path / "each.png", image, transparency=bytes([255, 0, 51])))
    assert each[0].tolist() == [list(c) for c in (red, white, (204, 204, 255), white)]
    gif = read_image(save(tmp_path / "x.gif", image, transparency=2))
    assert gif[0].tolist() == [list(c) for c in (red, green, white, green)]


def test_one_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8))
    got = read_image(save(tmp_path / "x.png", image, transparency=(1, 2, 3)))
    assert got.tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 255, 0))  # cyan and yellow: green
    got = read_image(save(tmp_path / "x.jpg", image, quality=95))
    assert np.abs(got.astype(int) - (0, 255, 0)).max() <= 4


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit(tmp_path: Path, extension: str, channels: int) -> None:
    deep = np.array([[0, 255, 256, 32768, 40000, 65535]], np.uint16)
    path = save(tmp_path / f"x.{extension}", Image.fromarray(deep))
    got = read_image(path, channels=channels)
    assert got.shape == (1, 6, channels)
    for channel in range(channels):
        assert got[0, :, channel].tolist() == [0, 0, 1, 128, 156, 255]


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_16_bit_colour_by_the_same_rule(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">6H", 255, 256, 65535, 40000, 32768, 0)
    (tmp_path / "x.png").write_bytes(png(2, 1, 16, 2, row))
    assert read_image(tmp_path / "x.png").tolist() == [[[0, 1, 255], [156, 128, 0]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.4, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, 32767.5, 65535.0]], np.float32), [0, 128, 255]),
        (np.array([[-5.0, 0.0, 5.0]], np.float32), [0, 128, 255]),
        (np.array([[7e7, 8e7, 9e7]], np.float32), [0, 128, 255]),
        (np.array([[300, 300, 65535]], np.int32), [1, 1, 255]),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
        (np.array([[5, 5, 5]], np.int32), [0, 0, 0]),
        (np.full((1, 3), -2.5, np.float32), [0, 0, 0]),
    ],
)
def test_32_bit(tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
    path = save(tmp_path / "x.tif", Image.fromarray(values))
    assert read_image(path, channels=1)[0, :, 0].tolist() == expected


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "x.tif", Image.fromarray(np.array([[0, np.nan]], np.float32)))
    assert "finite" in reason(path)


def test_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("x.gif", "x.png", "x.webp", "x.tif"):
        options = {"lossless": True} if name.endswith("webp") else {}
        save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **options)
        got = read_image(tmp_path / name)
        assert got.shape == (8, 8, 3)
        assert (got == (255, 0, 0)).all(), name


def test_jpeg_with_a_second_picture(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 16), "white"), Image.new("RGB", (16, 16), "black")
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[second])
    assert (read_image(tmp_path / "x.jpg") == 255).all()


def test_grey(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.new("RGB", (2, 2), (255, 0, 0)))
    assert read_image(path, channels=1).tolist() == [[[76]] * 2] * 2  # 0.299 * 255
    clear = save(tmp_path / "clear.png", Image.new("RGBA", (1, 1), (255, 0, 0, 0)))
    assert read_image(clear, channels=1).tolist() == [[[255]]]


def test_other_channels_only_from_such_files(tmp_path: Path) -> None:
    rgba = save(tmp_path / "rgba.png", Image.new("RGBA", (2, 1), (1, 2, 3, 4)))
    assert read_image(rgba, channels=4).tolist() == [[[1, 2, 3, 4]] * 2]
    la = save(tmp_path / "la.png", Image.new("LA", (1, 1), (1, 2)))
    assert read_image(la, channels=2).tolist() == [[[1, 2]]]
    rgb = save(tmp_path / "rgb.png", Image.new("RGB", (2, 1)))
    assert reason(rgb, channels=4) == "has 3 channels (mode RGB); expected 4"
    assert reason(rgb, channels=13).endswith("expected 13")
    with pytest.raises(UsageError, match="channels 0"):
        read_image(rgb, channels=0)


def test_content_counts_not_the_extension(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "x.jpg", format="PNG")
    assert (read_image(tmp_path / "x.jpg") == ramp()).all()


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "webp", "tif", "bmp"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated(tmp_path: Path, extension: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"x.{extension}", Image.fromarray(noise))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert reason(path)


def test_truncated_jpeg_is_called_so(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", Image.fromarray(ramp(200, 200)))
    path.write_bytes(path.read_bytes()[:-200])
    assert "truncated" in reason(path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").touch()
    assert reason(tmp_path / "x.jpg") == "is empty (0 bytes)"


@pytest.mark.parametrize(
    "content",
    [b"hello, this is no image\n" * 9, b"\xff\xd8\xff", b"\0", b"%!PS-Adobe-3.0 EPSF-3.0\n" * 9],
)
def test_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    assert "not a JPEG, PNG" in reason(tmp_path / "x.jpg")


def test_postscript_never_reaches_a_decoder(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"
    )
    assert "not a JPEG, PNG" in reason(tmp_path / "x.jpg")


@pytest.mark.parametrize(("width", "height"), [(13_378, 13_378), (60_000, 60_000)])
def test_bomb(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "x.png").write_bytes(png(width, height, 8, 2, b""))
    assert reason(tmp_path / "x.png") == "has more than 178,956,970 pixels"


def test_the_limit_holds_where_pillows_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "x.png").write_bytes(png(20_000, 20_000, 8, 2, b""))
    assert "pixels" in reason(tmp_path / "x.png")


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    assert reason(tmp_path / "folder.jpg") == "is a folder, not a file"
    assert reason(tmp_path / "gone.jpg") == "does not exist"
    assert reason("nul\0byte.jpg")


if hasattr(os, "mkfifo"):

    def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x.jpg")
        assert "pipe" in reason(tmp_path / "x.jpg")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.png", Image.new("L", (1, 1)))
    if os.geteuid() != 0:
        path.chmod(0)
    else:  # root may read everything, so the system's answer is played
        monkeypatch.setattr(
            "builtins.open", lambda *_, **__: (_ for _ in ()).throw(PermissionError)
        )
    assert reason(path) == "no permission to read it"


@pytest.mark.parametrize(
    "name",
    ["a b.png", "-x.png", "日本ü.png", "a\nb.png", "%s{0}.png", "[1]*", "=1+1.png", "'\".png"],
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    Image.fromarray(ramp()).save(tmp_path / name, format="PNG")
    assert (read_image(tmp_path / name) == ramp()).all()
    assert (read_image(str(tmp_path / name)) == ramp()).all()


def warning_file(folder: Path) -> Path:
    """A TIFF about whose metadata Pillow warns while it decodes."""
    path = save(folder / "w.tif", Image.fromarray(ramp()))
    raw = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", raw, 4)
    (count,) = struct.unpack_from("<H", raw, start)
    for i in range(count):  # claim a second value for a tag that has one
        tag, kind, _, value = struct.unpack_from("<HHII", raw, start + 2 + 12 * i)
        if tag == 284:  # planar configuration
            struct.pack_into("<HHII", raw, start + 2 + 12 * i, tag, kind, 2, value)
    path.write_bytes(raw)
    return path


def test_pillow_warnings_are_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = warning_file(tmp_path)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with Image.open(path) as image:
            image.load()
    assert seen, "the file must make Pillow warn, else this test shows nothing"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert read_image(path).shape == (12, 16, 3)
        warnings.warn("someone else's", UserWarning, stacklevel=1)
    assert [str(w.message) for w in seen] == ["someone else's"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (12, 16, 3)
    assert capfd.readouterr() == ("", "")
    assert any(isinstance(h, logging.NullHandler) for h in logging.getLogger("PIL").handlers)


def test_threads(tmp_path: Path) -> None:
    paths = []
    for i in range(40):
        image = Image.fromarray(np.full((9, 9, 3), i, np.uint8))
        paths.append(save(tmp_path / f"{i}.{'png' if i % 2 else 'bmp'}", image))
        if i % 10 == 9:
            paths[-1].write_bytes(b"broken")
    start = threading.Barrier(4)

    def work(part: int) -> list[int]:
        start.wait()
        values = []
        for i in range(part, 40, 4):
            try:
                values.append(int(read_image(paths[i])[0, 0, 0]))
            except UnreadableImage:
                values.append(-1)
        return values

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    expected = [-1 if i % 10 == 9 else i for i in range(40)]
    assert results == [expected[part::4] for part in range(4)]


ADOBE_RGB = (  # primaries and white as CIE xy, and gamma
    ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (0.3127, 0.3290), 2.2)  # fmt: skip


def matrix_profile(primaries: tuple[tuple[float, float], ...], gamma: float) -> bytes:
    """A minimal ICC v2 display profile: D50-adapted colorants, one gamma (ICC.1:2001-04)."""

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    white, d50 = xyz(0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])
    columns = np.stack([xyz(*p) for p in primaries], axis=1)
    columns = columns * np.linalg.solve(columns, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367],
                         [0.0389, -0.0685, 1.0296]])  # fmt: skip
    scale = np.diag((bradford @ d50) / (bradford @ white))
    columns = np.linalg.inv(bradford) @ scale @ bradford @ columns

    def fixed(values: np.ndarray) -> bytes:
        return b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
            b"wtpt": b"XYZ " + bytes(4) + fixed(d50)}  # fmt: skip
    for i, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = b"XYZ " + bytes(4) + fixed(columns[:, i])
        tags[name + b"TRC"] = curve
    return icc(b"mntrRGB XYZ ", tags)


def icc(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC v2 profile (ICC.1:2001-04, section 6)."""
    body, table, offset = b"", struct.pack(">I", len(tags)), 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    d50 = struct.pack(">iii", 63190, 65536, 54061)
    head = struct.pack(">I", offset + len(body)) + bytes(4) + bytes.fromhex("02400000")
    head += kind + bytes(12) + b"acsp" + bytes(28) + d50 + bytes(48)
    return head + table + body


def ink_profile() -> bytes:
    """A CMYK printer profile whose paper is white, whose cyan is a middle grey, and whose other
    inks are black: only a reader that uses the profile, the right way round, sees that."""
    lightness = [255 if not (m or y or k) and not c else 136 if not (m or y or k) else 0
                 for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]  # fmt: skip
    nodes = b"".join(bytes([value, 128, 128]) for value in lightness)
    identity = struct.pack(">9i", *[65536 * (i % 4 == 0) for i in range(9)])
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity
    table += bytes(range(256)) * 4 + nodes + bytes(range(256)) * 3
    paper = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    return icc(b"prtrCMYKLab ", {b"desc": text, b"wtpt": paper, b"A2B0": table, b"A2B1": table})


def test_wide_colours_become_srgb(tmp_path: Path) -> None:
    profile = matrix_profile(ADOBE_RGB[0], ADOBE_RGB[2])
    pixels = np.array([[[255, 255, 255], [0, 0, 0], [128, 128, 128], [150, 100, 80]]], np.uint8)
    for name in ("x.png", "x.tif", "x.webp"):
        options: dict[str, object] = {"lossless": True} if name.endswith("webp") else {}
        path = save(tmp_path / name, Image.fromarray(pixels), icc_profile=profile, **options)
        got = read_image(path)[0].astype(int)
        assert np.abs(got[:3] - [[255] * 3, [0] * 3, [128] * 3]).max() <= 2, name
        # (150, 100, 80) in Adobe RGB (1998), by its published matrix: redder in sRGB
        assert np.abs(got[3] - (166, 100, 78)).max() <= 3, (name, got[3])
        assert (read_image(path, reading=Reading(profiles=False)) == pixels).all()
    clear = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    path = save(tmp_path / "rgba.png", Image.fromarray(clear), icc_profile=profile)
    assert np.abs(read_image(path)[0] - got).max() <= 1
    indexed = Image.fromarray(pixels).quantize(4)
    path = save(tmp_path / "p.png", indexed, icc_profile=profile)
    assert np.abs(read_image(path)[0] - got).max() <= 1


@pytest.mark.parametrize("name", ["x.jpg", "x.tif"])
def test_inks_by_their_profile(tmp_path: Path, name: str) -> None:
    for ink, expected in (((255, 0, 0, 0), 127), ((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0)):
        image = Image.new("CMYK", (8, 8), ink)
        path = save(tmp_path / name, image, icc_profile=ink_profile())
        notes: list[str] = []
        got = read_image(path, notes=notes)
        assert notes == []
        assert np.abs(got.astype(int) - expected).max() <= 4, (ink, got[0, 0])
        assert np.abs(read_image(path, channels=1).astype(int) - expected).max() <= 4
    plain = read_image(path, reading=Reading(profiles=False))
    assert plain.max() < 8


def test_an_srgb_profile_changes_no_bit(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for picture in (Image.fromarray(ramp()), Image.fromarray(ramp()).convert("L")):
        plain = save(tmp_path / "a.jpg", picture)
        tagged = save(tmp_path / "b.jpg", picture, icc_profile=profile)
        assert plain.read_bytes() != tagged.read_bytes()
        assert (read_image(plain) == read_image(tagged)).all()


def test_grey_profiles(tmp_path: Path) -> None:
    gamma = matrix_profile(ADOBE_RGB[0], 1.0)  # linear light
    path = save(tmp_path / "x.png", Image.new("L", (1, 1), 55), icc_profile=gamma)
    linear = 55 / 255
    expected = round(255 * (1.055 * linear ** (1 / 2.4) - 0.055))
    assert abs(int(read_image(path, channels=1)[0, 0, 0]) - expected) <= 1
    assert len(set(read_image(path)[0, 0].tolist())) == 1


@pytest.mark.parametrize("profile", [b"junk", bytes(200), b"\0\0\0\x80" + b"acsp" * 50])
def test_broken_profiles_are_ignored_and_said(tmp_path: Path, profile: bytes) -> None:
    path = save(tmp_path / "x.png", Image.fromarray(ramp()), icc_profile=profile)
    notes: list[str] = []
    assert (read_image(path, notes=notes) == ramp()).all()
    assert notes == [PROFILE]


def test_profiles_that_do_not_fit_or_are_too_large(tmp_path: Path) -> None:
    profile = matrix_profile(ADOBE_RGB[0], 2.2)
    path = save(tmp_path / "x.jpg", Image.fromarray(ramp()).convert("CMYK"), icc_profile=profile)
    notes: list[str] = []
    read_image(path, notes=notes)
    assert notes == [PROFILE]
    path = save(tmp_path / "x.png", Image.fromarray(ramp()), icc_profile=profile)
    small = Reading(limits=Limits(profile_bytes=100))
    assert (read_image(path, notes=notes, reading=small) == ramp()).all()
    assert notes == [PROFILE] * 2


def test_cmyk_as_adobe_stores_it(tmp_path: Path) -> None:
    """Photoshop inverts the four channels and says so in an APP14 marker, which Pillow writes."""
    path = save(tmp_path / "x.jpg", Image.new("CMYK", (8, 8), (0, 0, 0, 255)), quality=95)
    assert b"Adobe" in path.read_bytes()
    assert read_image(path).max() < 8


def test_avif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "x.avif", Image.fromarray(ramp(24, 32)), quality=95, exif=exif)
    assert read_image(path).shape == (32, 24, 3)


def test_heic() -> None:
    pytest.importorskip("pi_heif", reason="extra 'heic' absent")
    path = Path(__file__).parent / "heic" / "rgb_29x100.heic"
    got = read_image(path)
    assert (got.shape, got.dtype) == ((100, 29, 3), np.uint8)
    assert got.std() > 20
    assert read_image(path, channels=1).shape == (100, 29, 1)
    assert "pixels" in reason(path, reading=Reading(limits=Limits(pixels=100)))


def test_background(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.new("RGBA", (1, 1), (0, 255, 0, 51)))
    assert read_image(path).tolist() == [[[204, 255, 204]]]
    black = read_image(path, reading=Reading(background=(0, 0, 0)))
    assert np.abs(black - [[[0, 51, 0]]]).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_window(tmp_path: Path, dtype: type) -> None:
    values = np.linspace(1000, 2000, 1001).reshape(7, 143).astype(dtype)
    values[0, 0], values[-1, -1] = 0, 60_000  # a dead and a hot pixel
    path = save(tmp_path / "x.tif", Image.fromarray(values))
    flat = read_image(path, channels=1)
    assert flat[1:-1].std() < 5, "at full range there is next to nothing to see"
    got = read_image(path, channels=1, reading=Reading(depth="window"))
    assert got.std() > 70
    assert (np.diff(got.reshape(-1).astype(int)[:-1]) >= 0).all()
    assert got[3, 71] in range(125, 131)


def test_remarks_are_said_once_with_their_number(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    remarks = Remarks()
    for name in ("1.tif", "2.tif", "3.gif", "4.png"):
        options = {"save_all": True, "append_images": frames[1:]} if name != "4.png" else {}
        notes: list[str] = []
        read_image(save(tmp_path / name, frames[0], **options), notes=notes)
        remarks.add(notes)
    assert remarks.lines() == [f"2 images: {PAGES}", f"1 image: {ANIMATION}"]
    path = save(tmp_path / "5.tif", Image.fromarray(np.array([[-9.0, 9.0]], np.float32)))
    notes = []
    read_image(path, notes=notes)
    assert notes == [OWN_RANGE]


def test_limits(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.fromarray(ramp()))
    size = path.stat().st_size
    for limits, word in (
        (Limits(pixels=191), "has more than 191 pixels"),
        (Limits(file_bytes=size - 1), f"has {size:,} bytes, more than the limit"),
        (Limits(decoded_bytes=575), "unpacks to more than 575 bytes"),
    ):
        assert word in reason(path, reading=Reading(limits=limits))
    exact = Limits(pixels=192, file_bytes=size, decoded_bytes=576)
    assert (read_image(path, reading=Reading(limits=exact)) == ramp()).all()


def test_a_text_block_that_unpacks_without_end(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("Comment", "a" * 3_000_000, zip=True)
    path = save(tmp_path / "x.png", Image.fromarray(ramp()), pnginfo=texts)
    assert path.stat().st_size < 10_000
    assert "unpacks to too many bytes" in reason(path)


def test_the_limit_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow refuses twice that by itself
    path = save(tmp_path / "x.png", Image.fromarray(ramp()))
    assert "pixels" in reason(path, reading=Reading(limits=Limits(pixels=99)))
    assert (read_image(path, reading=Reading(limits=Limits(pixels=192))) == ramp()).all()


def test_links(tmp_path: Path) -> None:
    real = save(tmp_path / "x.png", Image.fromarray(ramp()))
    (tmp_path / "good.png").symlink_to(real)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    assert (read_image(tmp_path / "good.png") == ramp()).all()
    assert "leads back to itself" in reason(tmp_path / "loop.png")
    assert reason(tmp_path / "nowhere.png") == "does not exist"


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "x.png", Image.fromarray(ramp()))
    true_stat = os.stat

    def then_it_grows(name: str, **options: object) -> os.stat_result:
        found = true_stat(name, **options)
        with open(name, "ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr("plusx.data.filebytes.os.stat", then_it_grows)
    assert reason(path) == "changed while it was read"


def test_thumbnails(tmp_path: Path) -> None:
    y, x = np.mgrid[:600, :900]
    large = np.stack([x // 4, y // 3, (x + y) // 6], axis=2).astype(np.uint8)
    for name in ("x.jpg", "x.png"):
        exif = Image.Exif()
        exif[0x0112] = 6
        path = save(tmp_path / name, Image.fromarray(large), exif=exif)
        small = read_thumbnail(path, 90)
        assert (small.shape, small.dtype) == ((90, 60, 3), np.uint8)
        whole = Image.fromarray(read_image(path)).resize((60, 90), Image.Resampling.BOX)
        assert np.abs(small - np.asarray(whole).astype(int)).mean() < 2
    tiny = save(tmp_path / "tiny.png", Image.new("L", (3, 5), 7))
    assert (read_thumbnail(tiny, 90) == np.full((5, 3, 3), 7)).all()
    with pytest.raises(UsageError, match="size 0"):
        read_thumbnail(tiny, 0)


def test_the_rules_are_plain_data() -> None:
    rules = Reading(background=(1, 2, 3), depth="window", percentiles=(1, 99), bands=(4, 3, 2),
                    range=((0, 1), (2, 3.5), (4, 5)), frame=2, limits=Limits(pixels=5))  # fmt: skip
    assert Reading.from_dict(json.loads(json.dumps(rules.to_dict()))) == rules
    assert Reading.from_dict({}) == Reading()
    preprocessing = Preprocessing(8, 8, reading=rules)
    stored = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(stored) == preprocessing
    del stored["reading"]
    assert Preprocessing.from_dict(stored).reading == Reading(profiles=False)
    for wrong in ({"depth": "deep"}, {"bands": [0]}, {"range": [[1, 1]]}, {"frame": -1},
                  {"background": [0, 0]}, {"limits": {"pixels": 0}}, {"limits": {"what": 1}},
                  {"percentiles": [99, 1]}, {"unknown": 1}, {"range": 5}):  # fmt: skip
        with pytest.raises(UsageError):
            Reading.from_dict(wrong)
    with pytest.raises(UsageError, match="2 bands for 3 channels"):
        Preprocessing(8, 8, reading=Reading(bands=(1, 2)))


def test_decoding_needs_no_torch() -> None:
    code = (
        "import sys, types; from importlib.machinery import PathFinder; import plusx\n"
        "spec = PathFinder.find_spec('data', plusx.__path__)\n"
        "room = types.ModuleType('plusx.data'); room.__path__ = spec.submodule_search_locations\n"
        "sys.modules['plusx.data'] = room\n"  # the room without its __init__
        "from plusx.data.decode import read_image, read_thumbnail\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
