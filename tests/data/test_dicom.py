"""DICOM: grey as a reading room's screen shows it; the patient stays unseen; end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.data import read_folder, read_image
from plusx.data.reading import Reading
from plusx.data.remarks import FRAMES
from plusx.errors import UnreadableImage

try:
    import pydicom
    import pydicom.data
    from pydicom.dataset import Dataset, FileMetaDataset
except ImportError:
    pytest.skip("extra 'dicom' absent", allow_module_level=True)

from plusx.data.dicom import patient_group

REAL = Path(pydicom.data.__file__).parent / "test_files"


def write(path: Path, values: np.ndarray, **entries: Any) -> Path:
    """A small uncompressed file of 16-bit grey values (or 8-bit, as they are)."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3.4"
    data.Rows, data.Columns = values.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * values.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        data.NumberOfFrames = len(values)
    for name, value in entries.items():
        setattr(data, name, value)
    data.PixelData = values.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def grey(path: Path, **reading: Any) -> np.ndarray:
    found = read_image(path, channels=1, reading=Reading(**reading))
    assert found.dtype == np.uint8
    return found[:, :, 0]


RAMP = np.array([[0, 1000, 2000, 3000, 4095]], np.uint16)


def test_without_a_window_the_stored_bits_are_the_range(tmp_path: Path) -> None:
    path = write(tmp_path / "x", RAMP, BitsStored=12, HighBit=11)
    assert grey(path).tolist() == [[0, 62, 125, 187, 255]]
    assert (read_image(path) == grey(path)[:, :, None]).all()


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    usual = write(tmp_path / "2", RAMP, BitsStored=12, HighBit=11)
    other = write(tmp_path / "1", RAMP, BitsStored=12, HighBit=11,
                  PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    assert (grey(other) == 255 - grey(usual)).all()


def test_window_as_the_standard_has_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x", RAMP, WindowCenter=2000, WindowWidth=2000)
    ours = grey(path)
    data = pydicom.dcmread(path)
    theirs = pydicom.pixels.apply_windowing(data.pixel_array, data) / 65535 * 255
    assert np.abs(ours - theirs).max() <= 0.5
    assert ours[0, 0] == 0
    assert ours[0, 4] == 255
    several = write(tmp_path / "y", RAMP, WindowCenter=[2000, 9], WindowWidth=[2000, 9])
    assert (grey(several) == ours).all(), "the first of several windows"


@pytest.mark.parametrize(
    ("function", "expected"), [("LINEAR_EXACT", 128), ("SIGMOID", 128), ("LINEAR", 128)]
)
def test_window_functions(tmp_path: Path, function: str, expected: int) -> None:
    path = write(tmp_path / "x", RAMP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function)
    found = grey(path)[0]
    assert abs(int(found[2]) - expected) <= 1
    assert found[0] <= 5
    assert found[4] >= 250


def test_a_window_that_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path / "x", RAMP, WindowCenter=2000, WindowWidth=0)
    with pytest.raises(UnreadableImage, match="window that cannot be"):
        read_image(path)


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    stored = np.array([[0, 1024, 1064, 1104, 2000]], np.uint16)  # air, water, tissue, ...
    path = write(tmp_path / "ct", stored, RescaleSlope=1, RescaleIntercept=-1024,
                 WindowCenter=40, WindowWidth=81)  # fmt: skip
    assert grey(path).tolist() == [[0, 2, 129, 255, 255]]


def test_signed_values(tmp_path: Path) -> None:
    path = write(tmp_path / "x", np.array([[-32768, 0, 32767]], np.int16))
    assert grey(path).tolist() == [[0, 128, 255]]


def test_voi_lut(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4, 100, 8], [255, 170, 85, 0]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    path = write(tmp_path / "x", np.array([[0, 100, 101, 102, 900]], np.uint16),
                 VOILUTSequence=[item])  # fmt: skip
    assert grey(path).tolist() == [[255, 255, 170, 85, 0]]


def test_padding_is_black_and_no_part_of_a_window(tmp_path: Path) -> None:
    values = np.array([[60000] * 5 + [100, 110, 120]], np.uint16)
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        path = write(tmp_path / kind, values, PixelPaddingValue=60000,
                     PhotometricInterpretation=kind)  # fmt: skip
        found = grey(path, depth="window", percentiles=(0, 100))[0]
        assert found[:5].tolist() == [0] * 5
        assert sorted(found[5:].tolist()) in ([0, 127, 255], [0, 128, 255])


def test_frames_are_said(tmp_path: Path) -> None:
    frames = np.stack([np.full((2, 2), v, np.uint8) for v in (10, 20, 30)])
    path = write(tmp_path / "x", frames)
    notes: list[str] = []
    assert (read_image(path, notes=notes) == 10).all()
    assert notes == [FRAMES]
    assert (grey(path, frame=2) == 30).all()
    with pytest.raises(UnreadableImage, match="3 frames"):
        grey(path, frame=3)


def test_compressed_files_give_the_same_image() -> None:
    plain = grey(REAL / "MR_small.dcm")
    assert plain.std() > 20
    for name in ("RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless", "expb"):
        assert (grey(REAL / f"MR_small_{name}.dcm") == plain).all(), name


@pytest.mark.parametrize("name", ["palette", "ybr_color", "rgb_color", "jpeg2k"])
def test_colour(name: str) -> None:
    path = REAL / f"examples_{name}.dcm"
    found = read_image(path)
    data = pydicom.dcmread(path)
    theirs = pydicom.pixels.pixel_array(data, index=0)
    if name == "palette":
        theirs = pydicom.pixels.apply_color_lut(theirs, data) // 257
    assert np.abs(found.astype(int) - theirs).max() <= 1
    assert (found != found[:, :, :1]).any(), "colour"


def test_what_is_no_image_or_not_read(tmp_path: Path) -> None:
    for name, word in (("rtplan", "without an image"), ("image_dfl", "deflated")):
        with pytest.raises(UnreadableImage, match=word):
            read_image(REAL / f"{name}.dcm")
    huge = write(tmp_path / "x", RAMP)
    data = pydicom.dcmread(huge)
    data.Rows = data.Columns = 60_000
    data.save_as(huge)
    with pytest.raises(UnreadableImage, match="more than 178,956,970 pixels"):
        read_image(huge)


def test_a_patient_is_a_group_that_shows_no_name(tmp_path: Path) -> None:
    one = write(tmp_path / "1", RAMP, PatientID="Müller-4711", PatientName="Anna")
    two = write(tmp_path / "2", RAMP, PatientID=" Müller-4711 ", PatientName="Eve")
    other = write(tmp_path / "3", RAMP, PatientID="4712")
    groups = [patient_group(path) for path in (one, two, other)]
    assert groups[0] == groups[1] != groups[2]
    assert all(group and len(group) == len("patient-") + 16 for group in groups)
    assert "4711" not in str(groups)
    assert patient_group(one, key=b"mine") != groups[0]
    assert patient_group(write(tmp_path / "4", RAMP)) is None
    Image.new("L", (2, 2)).save(tmp_path / "x.png")
    assert patient_group(tmp_path / "x.png") is None
    with pytest.raises(UnreadableImage, match="not exist"):
        patient_group(tmp_path / "gone")
    two.write_bytes(two.read_bytes()[:200])
    try:
        assert patient_group(two) is None
    except UnreadableImage as error:
        assert "4711" not in str(error)  # noqa: PT017 (either answer is right)


def test_files_without_an_extension_are_listed_by_content(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        write(tmp_path / label / "IM000001", RAMP)
        write(tmp_path / label / "1.2.840.113619.7", RAMP)
        write(tmp_path / label / "x.DCM", RAMP)
        (tmp_path / label / "README").write_text("no image")
    listing = read_folder(tmp_path)
    assert len(listing.samples) == 6
    assert listing.ignored == 2


def test_real_radiographs(shared_data: Path) -> None:
    folder = shared_data / "data" / "dicom"
    for name in ("gdcm_CR-MONO1-10-chest", "nema_RG1_J2KI_chest_pa", "nih_chest_1024"):
        path = folder / f"{name}.dcm"
        found = grey(path)
        assert found.std() > 25, "neither black nor white"
        middle = found[len(found) // 3 : 2 * len(found) // 3]
        third = middle.shape[1] // 3
        spine = middle[:, third + third // 3 : -third - third // 3]
        lung = middle[:, third // 3 : third]
        assert np.median(spine) > np.median(lung), f"{name}: bone is bright, air dark"
        identity = str(pydicom.dcmread(path, stop_before_pixels=True).get("PatientID") or "")
        group = patient_group(path)
        assert (group is None) == (identity == "")
        assert not identity or identity not in str(group)


def stripes(folder: Path) -> Path:
    """Two classes of 12-bit radiographs of 6 patients, MONOCHROME1, half of them without .dcm."""
    rng = np.random.default_rng(0)
    for number in range(72):
        label = ("across", "upright")[number % 2]
        wave = np.where(np.arange(32) // 4 % 2, 600.0, 0.0)
        values = rng.integers(800, 2200, (32, 32)) + (wave[:, None] if number % 2 else wave[None])
        place = folder / label
        place.mkdir(parents=True, exist_ok=True)
        name = f"{number:03}.dcm" if number % 4 < 2 else f"{number:03}"
        write(place / name, values.astype(np.uint16), BitsStored=12, HighBit=11,
              PhotometricInterpretation="MONOCHROME1", WindowCenter=1800, WindowWidth=2400,
              PatientID=f"secret{number % 6}", PatientName="Hidden^Person")  # fmt: skip
    return folder


def test_train_evaluate_predict(
    tmp_path: Path, tiny_weights: Path, command: Callable[..., Any]
) -> None:
    data, run = stripes(tmp_path / "data"), tmp_path / "run"
    said = command("train", data, "--weights", tiny_weights, "--channels", 1, "--out", run,
                   "--epochs", 6, "--lr", 2e-3, "--batch-size", 16, "--views", 2, "--patience", 0,
                   "--device", "cpu", "--precision", "float32", "--threads", 2)  # fmt: skip
    assert said.code == 0, said.err
    said = command("evaluate", run, data, "--split", "all", "--device", "cpu", "--json")
    assert said.code == 0, said.err
    scored = json.loads(said.out)
    assert scored["n"] == 72
    assert scored["figures"]["top1"]["value"] > 0.75
    files = sorted(data.rglob("*"))[-3:]
    said = command("predict", run, *files, "--device", "cpu")
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == 3
    written = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert b"secret" not in written
    assert b"Hidden" not in written
