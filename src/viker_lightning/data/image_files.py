"""Image files as pixels: the only place that decodes a picture, so that every picture is looked at in the same way."""

import contextlib
import io
import re
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is opened, whatever a file is called. Others are refused: PIL would start Ghostscript for an EPS file."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation; 1 is upright already."""

SIDEWAYS = (TURNS[5], TURNS[6], TURNS[7], TURNS[8])

_PNG_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_END, _ONES, _FILLER = b"\xff\xd9", b"\xff\x00" * 8, bytes(range(1, 200)) * 2

Read = TypeVar("Read")


class NotAnImage(ValueError):
    """Bytes that are no whole image; the message is the reason alone."""


def pixels(data: bytes) -> Image.Image:
    """The image in RGB with 8 bits a channel, upright; the first frame of an animation.

    Grey values of 16 bits are divided by 257, which maps 0 to 0 and 65535 to 255. What is transparent stands on white,
    as a viewer shows it: the colours stored below are not meant to be seen.

    Raises:
        NotAnImage: if the bytes are no whole image of a format in :data:`FORMATS`, or have 32 bits a pixel.
    """

    def decode(image: Image.Image) -> Image.Image:
        turn = _turn(image, data)
        _refuse_32_bits(image)
        image.load()
        shown = _eight_bits(image) if _is_deep(image) else _on_white(image)
        upright = (shown if turn is None else shown.transpose(turn)).convert("RGB")
        upright.info.clear()  # its EXIF would turn it once more
        return upright

    return _read(data, decode)


def size(data: bytes) -> tuple[int, int]:
    """Width and height of the upright image, from its header.

    Raises:
        NotAnImage: as :func:`pixels` does, as far as the header tells.
    """

    def upright(image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        return (height, width) if _turn(image, data) in SIDEWAYS else (width, height)

    return _read(data, upright)


def check(data: bytes) -> None:
    """Makes sure that the bytes are a whole image, decoding no more than that takes.

    A PNG has checksums. A JPEG that was cut and ended with an end marker is decoded without complaint, grey where data
    are missing; so its scan is read without the marker, at an eighth of the size, and must be complete before the data
    run out. All other formats are decoded.

    Raises:
        NotAnImage: if they are not.
    """

    def verify(image: Image.Image) -> None:
        kind = image.format
        _refuse_32_bits(image)
        if kind == "PNG":
            image.verify()
        elif kind in ("JPEG", "MPO") and (end := _jpeg_end(data)):
            if not _is_complete(data[:end]):
                raise NotAnImage("JPEG data are missing before the end marker")
        else:
            image.load()

    _read(data, verify)


def treatment(data: bytes) -> bytes:
    """What is done to an image before it is looked at: ``turned 6``, ``16 bits``, ``on white``; empty for nothing.

    Whatever is kept under a picture's identity depends on it.
    """

    def describe(image: Image.Image) -> bytes:
        turn = _turn(image, data)
        white = b"on white" if _is_transparent(image) else b""
        return (b"" if turn is None else b"turned %d" % turn) + (b"16 bits" if _is_deep(image) else b"") + white

    try:
        return _read(data, describe)
    except NotAnImage:
        return b""


def _read(data: bytes, look: Callable[[Image.Image], Read]) -> Read:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return look(image)
    except NotAnImage:
        raise
    except UnidentifiedImageError as error:
        raise NotAnImage("unknown format; PNG, JPEG, WebP, BMP, GIF and TIFF are read") from error
    except Exception as error:  # PIL raises nearly anything where a file is damaged
        raise NotAnImage(str(error) or type(error).__name__) from error


def _turn(image: Image.Image, data: bytes) -> Image.Transpose | None:
    """What makes an opened image upright; a TIFF is turned by PIL itself."""
    if image.format == "TIFF":
        return None
    # PIL decodes a PNG to look for EXIF behind its pixels.
    if image.format == "PNG" and not any(name in data for name in _PNG_ORIENTATION):
        return None
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF says nothing, and the picture may be good all the same
        return None


def _is_deep(image: Image.Image) -> bool:
    """Whether an image is grey with 16 bits."""
    return image.mode.startswith("I;16")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    values[values == image.info.get("transparency", -1)] = 65535
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _is_transparent(image: Image.Image) -> bool:
    """Whether anything of an image is; one with an alpha channel is decoded for it, since most of those are opaque."""
    if _is_deep(image) or not image.has_transparency_data:
        return "transparency" in image.info
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(lowest != 255)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)


def _refuse_32_bits(image: Image.Image) -> None:
    if image.mode in ("I", "F"):
        raise NotAnImage("grey values of 32 bits, of which no file says what is white; save it with 8 or 16")


def _jpeg_end(data: bytes) -> int | None:
    """Where the end marker of the first image of a JPEG file is; ``None`` if there is none."""
    at = 2
    while marker := _JPEG_MARKER.search(data, at):  # within a scan, bytes that look like markers are escaped
        if marker[1] == _END[1:]:
            return marker.start()
        at = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    return None


def _is_complete(data: bytes) -> bool:
    """Whether JPEG data without their end marker hold all of the image.

    A decoder that finds no marker asks for more data, and PIL reports that there are none. A few bytes of ones behind
    the data, which are no code, let it look ahead. Where there are several scans it always asks for more; then bytes
    are put behind the last scan, which change pixels if it was not complete, and are skipped if it was.
    """
    image = JpegImageFile(io.BytesIO(data + _ONES))
    if not image.info.get("progressive"):
        image.draft(None, (1, 1))
        with contextlib.suppress(OSError):
            image.load()
            return True
    ended, filled = (JpegImageFile(io.BytesIO(data + more + _END)) for more in (b"", _FILLER))
    return ended.tobytes() == filled.tobytes()
