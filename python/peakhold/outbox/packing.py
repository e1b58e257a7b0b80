"""How contents are stored: compressed, with what every one says known beforehand."""

from __future__ import annotations

import zlib

# Part of encoding version 1: a content that was packed with it needs it to be unpacked.
_COMMON = (
    b'{"data":[{"inference_ids":["","],"field_name":"","field_value":""}]}'
    b'{"closed_at":"20-T:.","facts":{"device_id":null,'
    b'"inference_server_version":"peakhold-0.1.0","platform":"Linux",'
    b'"platform_release":"","platform_version":"#1 SMP Debian Ubuntu",'
    b'"architecture":"x86_64aarch64","hostname":"","ip_address":"192.168.127.0.0.1",'
    b'"mac_address":"00:00:00:00:00:00","processor":""}}\n'
    b"classificationinstance-segmentationpersonobject-detection"
)


UNREADABLE = (zlib.error, ValueError, TypeError)
"""What comes of reading a damaged content, and the columns beside it."""


def pack(content: bytes) -> bytes:
    """Return an encoded content compressed."""
    packer = zlib.compressobj(9, zdict=_COMMON)
    return packer.compress(content) + packer.flush()


def unpack(packed: bytes) -> bytes:
    """Return what was packed.

    Raises:
        zlib.error: If it is damaged, its checksum included.
    """
    unpacker = zlib.decompressobj(zdict=_COMMON)
    content = unpacker.decompress(packed) + unpacker.flush()
    if not unpacker.eof:
        raise zlib.error("the end is missing")
    return content
