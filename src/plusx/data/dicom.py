"""DICOM: from stored values to what a reading room's screen shows. Needs the extra ``dicom``.

Source: DICOM PS3.3, sections C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT);
https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

from __future__ import annotations

import hashlib
import io
import os
from typing import Any

import numpy as np
from PIL import Image

from plusx.data.deep import stretch
from plusx.data.filebytes import Refused, open_bytes
from plusx.data.photograph import check_size, silence
from plusx.data.reading import Limits, Reading
from plusx.data.remarks import FRAMES, OWN_RANGE
from plusx.errors import MissingExtra, UnreadableImage

_ENTRIES = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "VOILUTSequence", "RescaleIntercept", "RescaleSlope",
    "ModalityLUTSequence", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "LossyImageCompression", "PixelData",
]  # fmt: skip
"""All that is read of a file. None of it is about the patient."""

_DECODERS = {
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG, 8 bits
    "1.2.840.10008.1.2.4.51": "pillow",  # JPEG, 8 bits (12 fail, with GDCM too)
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "gdcm",  # JPEG-LS
    "1.2.840.10008.1.2.4.81": "gdcm",
} | {f"1.2.840.10008.1.2.4.{n}": "pylibjpeg" for n in (90, 91, 201, 202, 203)}  # JPEG 2000
"""Compressed transfer syntaxes and which of pydicom's decoders reads each. GDCM ends the whole
process on some damaged JPEG files (it throws what nobody catches), so it reads only what no other
decoder does. Other syntaxes than these and the uncompressed ones are refused."""

DEFLATED = "1.2.840.10008.1.2.1.99"

_KEY = b"plusx patient group, version 1"


def is_dicom(content: bytes) -> bool:
    """Whether these first bytes (132 or more) are those of a DICOM file."""
    return content[128:132] == b"DICM"


def open_dicom(content: bytes, reading: Reading, notes: list[str]) -> Image.Image:
    """One frame, as mode L or RGB.

    Grey: modality LUT or rescale, then the file's first VOI LUT or window, else all that the
    stored bits can hold (above 16 bits: its own lowest to highest value); ``depth="window"``
    takes the image's own percentiles instead. Padding is black. MONOCHROME1 is inverted, so that
    high is bright in every file. Colour: palettes are resolved, YBR becomes RGB; more than 8
    bits are taken at full range.

    Raises:
        Refused: over a limit, no such frame, no pixels, or the extra is not installed. Any other
            exception: the decoder's.
    """
    try:
        import pydicom
        from pydicom.pixels.processing import apply_color_lut
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise Refused("is a DICOM image; to read it: pip install 'plusx[dicom]'") from None
    if DEFLATED.encode() in content[:1024]:  # pydicom would unpack it whole, whatever its size
        raise Refused("is a deflated DICOM file, which is not read")
    data = pydicom.dcmread(io.BytesIO(content), specific_tags=_ENTRIES)
    if not all(name in data for name in ("PixelData", "Rows", "Columns")):
        raise Refused("is a DICOM file without an image")
    _check(data, reading.limits)
    frames = int(data.get("NumberOfFrames") or 1)
    if reading.frame >= frames:
        raise Refused(f"has {frames} frames; frame {reading.frame} was asked for (from 0)")
    if frames > 1:
        notes.append(FRAMES)
    values = pixel_array(data, index=reading.frame, decoding_plugin=_decoder(data))
    kind = str(data.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        colour = apply_color_lut(values, data)
        top = 2 ** int(data.RedPaletteColorLookupTableDescriptor[2]) - 1
        return Image.fromarray(stretch(colour, 0, max(top, int(colour.max()))))
    if values.ndim == 3:
        return Image.fromarray(stretch(values, 0, 2 ** int(data.BitsStored) - 1))
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused(f"is a DICOM image of kind {kind[:40]!r}, which is not read")
    grey = _shown(values, data, reading, notes)
    if kind == "MONOCHROME1":
        grey = 255 - grey
    grey[_padding(values, data)] = 0
    return Image.fromarray(grey)


def may_be_dicom(path: str) -> bool:
    """Whether the file's name lets it be DICOM: ``.dcm``, or no extension but digits after a dot
    (archives name files by identifiers)."""
    extension = os.path.splitext(path)[1][1:].lower()  # noqa: PTH122 (called for every image)
    return extension in ("dcm", "dicom", "") or extension.isdigit()


def patient_group(path: str | os.PathLike[str], *, key: bytes = _KEY) -> str | None:
    """A group for the images of one patient that does not show who it is.

    A keyed hash (BLAKE2b, 64 bits) of the file's PatientID: the same in every run and on every
    machine. It is a pseudonym: who holds a list of patients' ids and the key can look for them in
    it. Give a ``key`` of your own where that matters. Pixels are not read.

    Returns:
        ``patient-`` and 16 hexadecimal digits; None where the file is no DICOM or states no id.

    Raises:
        UnreadableImage: the file cannot be read.
        MissingExtra: pydicom is not installed, and the file is DICOM.
    """
    name = os.fspath(path)
    try:
        with open_bytes(name) as file:
            if not is_dicom(file.read(132)):
                return None
            try:
                import pydicom
            except ImportError:
                raise MissingExtra(f"{name}: reading DICOM", "dicom") from None
            silence()
            file.seek(0)
            data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
            said = str(data.get("PatientID") or "").strip()
    except MissingExtra:
        raise
    except FileNotFoundError:
        raise UnreadableImage(name, "does not exist") from None
    except Exception as error:  # hostile bytes; the text is not passed on, it may quote the header
        raise UnreadableImage(
            name, f"its DICOM header cannot be read ({type(error).__name__})"
        ) from None
    if not said:
        return None
    digest = hashlib.blake2b(said.encode("utf-8", "surrogateescape"), key=key[:64], digest_size=8)
    return f"patient-{digest.hexdigest()}"


def _decoder(data: Any) -> str:
    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return ""
    if str(syntax) not in _DECODERS:
        raise Refused(f"is a DICOM file compressed in a way that is not read ({syntax.name[:60]})")
    return _DECODERS[str(syntax)]


def _check(data: Any, limits: Limits) -> None:
    size = int(data.Columns), int(data.Rows)
    samples = int(data.get("SamplesPerPixel") or 1)
    check_size(size, samples * max(1, int(data.BitsAllocated) // 8), limits)


def _shown(values: np.ndarray, data: Any, reading: Reading, notes: list[str]) -> np.ndarray:
    """(H, W) uint8: modality LUT, then VOI LUT or window (PS3.3 C.11.1 and C.11.2)."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    outer = _ends(data)
    value = apply_modality_lut(values, data)
    if reading.depth == "window":
        kept = value[~_padding(values, data)]
        low, high = np.percentile(kept, reading.percentiles) if kept.size else (0.0, 1.0)
        return stretch(value, float(low), float(high))
    if data.get("VOILUTSequence"):
        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        return stretch(apply_voi(value.astype(np.int64), data), 0, 2**bits - 1)
    centre, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        if int(data.BitsStored) > 16:
            notes.append(OWN_RANGE)
            outer = float(value.min()), float(value.max())
        return stretch(value, *outer)
    return _window(value, centre, width, str(data.get("VOILUTFunction") or "LINEAR").upper())


def _window(value: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT), to 0..255."""
    if function == "SIGMOID" and width > 0:
        exponent = (-4 * (value.astype(np.float64) - centre) / width).clip(-700, 700)
        return stretch(1 / (1 + np.exp(exponent)), 0, 1)
    if function == "LINEAR_EXACT" and width > 0:
        return stretch(value, centre - width / 2, centre + width / 2)
    if function == "LINEAR" and width >= 1:
        low = centre - 0.5 - (width - 1) / 2
        return stretch(value, low, low + max(width - 1, 1e-9))
    raise Refused(f"has a DICOM window that cannot be ({function[:20]}, width {width:g})")


def _ends(data: Any) -> tuple[float, float]:
    """The lowest and highest value that can stand after the modality LUT."""
    if data.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits, signed = int(data.BitsStored), int(data.get("PixelRepresentation") or 0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = _first(data.get("RescaleSlope")), _first(data.get("RescaleIntercept"))
    if slope is None or intercept is None:
        return float(low), float(high)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return ends[0], ends[1]


def _first(value: Any) -> float | None:
    """A number that may be absent, empty or the first of several."""
    if value is None or (isinstance(value, str) and not value):
        return None
    if not isinstance(value, str | int | float) and hasattr(value, "__len__"):
        return float(value[0]) if len(value) else None
    return float(value)


def _padding(values: np.ndarray, data: Any) -> np.ndarray:
    """(H, W) bool: stored values that fill the frame around the image (PS3.3 C.7.5.1.1.2)."""
    pad = data.get("PixelPaddingValue")
    if not isinstance(pad, int):
        return np.zeros(values.shape, bool)
    other = data.get("PixelPaddingRangeLimit", pad)
    low, high = sorted((pad, other if isinstance(other, int) else pad))
    return (values >= low) & (values <= high)
