"""A valid answer is read in every dress that HTTP allows (RFC 9110, RFC 9112)."""

import gzip
import json
import zlib

import pytest

from django_idenfy_phone.client import IdenfyClient
from django_idenfy_phone.exceptions import OutcomeUnknown
from support import wire as w
from support.constants import NUMBER

REQUEST_ID = "3d50e1584e0946e789e0185c009aaadf"
BODY = json.dumps({"request_id": REQUEST_ID}).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
FINAL = b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
HALVES = BODY[:7], BODY[7:]


def encoded(body, encoding):
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunks(*parts, extension=b"", trailers=b""):
    lines = b"".join(b"%X%b\r\n%b\r\n" % (len(p), extension, p) for p in parts)
    return b"\r\n" + lines + b"0" + extension + b"\r\n" + trailers + b"\r\n"


DRESSES = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + FINAL,
    "102": b"HTTP/1.1 102 Processing\r\n\r\n" + FINAL,
    "103 with fields": b"HTTP/1.1 103 X\r\nLink: </a>\r\nA: b\r\n\r\n" + FINAL,
    "199": b"HTTP/1.1 199\r\n\r\n" + FINAL,
    "many interim": b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 103 X\r\n\r\n" * 20 + FINAL,
    "gzip": encoded(gzip.compress(BODY), "gzip"),
    "GZIP": encoded(gzip.compress(BODY), "GZIP"),
    "x-gzip": encoded(gzip.compress(BODY), "x-gzip"),
    "deflate": encoded(zlib.compress(BODY), "deflate"),
    "gzip of gzip": encoded(gzip.compress(gzip.compress(BODY)), "gzip, gzip"),
    "gzip of deflate": encoded(gzip.compress(zlib.compress(BODY)), "deflate,gzip"),
    "gzip members": encoded(b"".join(map(gzip.compress, HALVES)), "gzip"),
    "no gzip": encoded(BODY, "gzip"),
    "identity": encoded(BODY, "identity"),
    "gzip in chunks": CHUNKED
    + b"content-encoding: gzip\r\n"
    + chunks(*[bytes([byte]) for byte in gzip.compress(BODY)]),
    "chunks": CHUNKED + chunks(*HALVES),
    "chunk extensions": CHUNKED + chunks(*HALVES, extension=b';a;b="c; d"'),
    "chunk trailers": CHUNKED + chunks(BODY, trailers=b"X-Sum: 1\r\nY: 2\r\n"),
    "chunked and length": CHUNKED.replace(b"chunked", b"Chunked")
    + b"Content-Length: 3\r\n"
    + chunks(BODY),
    "BOM": b"HTTP/1.1 200 OK\r\n\r\n\xef\xbb\xbf" + BODY,
    "BOM in gzip": encoded(gzip.compress(b"\xef\xbb\xbf" + BODY), "gzip"),
    "until close": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "no reason": b"HTTP/1.1 200 \r\n" + LENGTH + b"\r\n" + BODY,
    "bare line feeds": FINAL.replace(b"\r\n", b"\n"),
    "lower case": FINAL.replace(b"Content-Length: ", b"content-length:"),
    "upper case": FINAL.replace(b"Content-Length", b"CONTENT-LENGTH"),
    "spaces around": FINAL.replace(b"Length: ", b"Length: \t ").replace(b"OK", b"ok "),
    "another type": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + BODY,
    "space around JSON": b"HTTP/1.1 200 OK\r\n\r\n\r\n " + BODY + b"\n",
    "201": FINAL.replace(b"200", b"201"),
    "202": FINAL.replace(b"200", b"202"),
    "203": FINAL.replace(b"200", b"203"),
    "299": FINAL.replace(b"200", b"299"),
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_valid_answer_is_read_in_any_dress(wire, dress):
    wire.will(lambda sock: sock.sendall(dress))
    assert IdenfyClient().send_sms(NUMBER) == REQUEST_ID


def test_interim_answer_and_trailers_leave_the_connection_usable(wire):
    body = chunks(b'{"is_verified": true}', trailers=b"X-Sum: 1\r\n")
    answer = b"HTTP/1.1 103 X\r\n\r\n" + CHUNKED + body
    wire.will(lambda sock: (sock.sendall(answer), w.KEEP_OPEN)[1])
    client = IdenfyClient()
    assert [client.verify_sms(REQUEST_ID, "0042") for _ in range(2)] == [True, True]
    assert wire.connections == 1


GZIP = gzip.compress(BODY)
BROKEN = {
    "cut gzip": encoded(GZIP[:-9], "gzip"),
    "wrong checksum": encoded(GZIP[:-8] + b"\0" * 8, "gzip"),
    "unknown encoding": encoded(GZIP, "br"),
    "cut chunks": CHUNKED + chunks(*HALVES)[:20],
    "only interim": b"HTTP/1.1 103 X\r\n\r\n",
    "switched protocol": b"HTTP/1.1 101 X\r\n\r\n" + FINAL,
}


@pytest.mark.parametrize("dress", BROKEN.values(), ids=BROKEN)
def test_broken_answer_is_an_unknown_outcome(wire, dress):
    wire.will(lambda sock: sock.sendall(dress))
    with pytest.raises(OutcomeUnknown):
        IdenfyClient().send_sms(NUMBER)


def padded(size):
    return gzip.compress(BODY.ljust(size))


def test_compressed_answer_of_64_kib_is_read(wire):
    wire.will(lambda sock: sock.sendall(encoded(padded(64 * 1024), "gzip")))
    assert IdenfyClient().send_sms(NUMBER) == REQUEST_ID


@pytest.mark.parametrize(
    ("body", "encodings"),
    [
        (padded(64 * 1024 + 1), "gzip"),
        (padded(40_000) * 2, "gzip"),
        (gzip.compress(padded(64 * 1024 + 1)), "gzip, gzip"),
    ],
    ids=["one byte more", "members", "twice"],
)
def test_compressed_answer_over_64_kib_is_refused(wire, body, encodings):
    wire.will(lambda sock: sock.sendall(encoded(body, encodings)))
    with pytest.raises(OutcomeUnknown, match="oversized"):
        IdenfyClient().send_sms(NUMBER)
