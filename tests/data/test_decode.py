"""Decoding: every format, mode and fault."""

from __future__ import annotations

import logging
import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.data import read_image
from plusx.errors import UnreadableImage, UsageError


def ramp(height: int = 12, width: int = 16) -> np.ndarray:
    """(H, W, 3) uint8 whose pixels all differ from their neighbours a little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 10, y * 12, 255 - x * 5 - y * 5], axis=2).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def reason(path: Path | str, **options: int) -> str:
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
    "name", ["a b.png", "-x.png", "日本ü.png", "a\nb.png", "%s{0}.png", "[1]*"]
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
