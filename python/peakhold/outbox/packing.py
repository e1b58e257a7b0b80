"""How bodies are stored: compressed, with what every report says known beforehand."""

from __future__ import annotations

import zlib

# Part of encoding version 1: a body that was packed with it needs it to be unpacked.
_COMMON = (
    b'{"data":[{"inference_ids":["","],"field_name":"","field_value":""}]}'
    b'{"timestamp":"20-T:.","source":"workflow","source_info":'
    b'"ModelMonitoringInferenceAggregatorBlockV1","device_id":null,'
    b'"inference_server_version":"peakhold-0.1.0","platform":"Linux",'
    b'"platform_release":"","platform_version":"#1 SMP Debian Ubuntu",'
    b'"architecture":"x86_64aarch64","hostname":"","ip_address":"192.168.127.0.0.1",'
    b'"mac_address":"00:00:00:00:00:00","processor":"","inference_results":['
    b'"model_type":"classification","model_type":"instance-segmentation",'
    b'{"class_name":"person","confidence":0.9,"inference_id":"","model_id":"/1",'
    b'"model_type":"object-detection"},{"class_name":"'
)


UNREADABLE = (zlib.error, ValueError, TypeError)
"""What comes of reading a damaged body, and the columns beside it."""


def pack(body: bytes) -> bytes:
    """Return a body compressed."""
    packer = zlib.compressobj(9, zdict=_COMMON)
    return packer.compress(body) + packer.flush()


def unpack(packed: bytes) -> bytes:
    """Return what was packed.

    Raises:
        zlib.error: If it is damaged, its checksum included.
    """
    unpacker = zlib.decompressobj(zdict=_COMMON)
    body = unpacker.decompress(packed) + unpacker.flush()
    if not unpacker.eof:
        raise zlib.error("the end is missing")
    return body
