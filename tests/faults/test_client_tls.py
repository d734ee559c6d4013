"""The certificates that are trusted are read once, and again after a change."""

import ssl
from contextlib import contextmanager

import pytest

from django_idenfy_phone.client import IdenfyClient
from django_idenfy_phone.exceptions import NeverSent
from support import brokers
from support import wire as w
from support.constants import NUMBER

REQUEST_ID = "r" * 32
SENT = w.answer(200, {"request_id": REQUEST_ID}, Set_Cookie="person=1; Path=/")


@pytest.fixture
def tls(tmp_path, monkeypatch, settings):
    """Serves over TLS with a certificate for localhost, which requests trusts."""
    certificate, key = brokers.self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    settings.IDENFY_PHONE_API_KEY = "test-key"
    settings.IDENFY_PHONE_API_SECRET = "test-secret"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    @contextmanager
    def serve(host="localhost"):
        def answer(sock):
            with context.wrap_socket(sock, server_side=True) as stream:
                requests.append(w.read_request(stream))
                SENT(stream)

        requests = []
        with w.serve(answer) as port:
            settings.IDENFY_PHONE_API_URL = f"https://{host}:{port}"
            yield requests

    serve.certificate = certificate
    return serve


def send():
    return IdenfyClient().send_sms(NUMBER)


def test_certificates_are_read_once_for_all_sends(tls, monkeypatch):
    def load(context, *arguments):
        loads.append(1)
        return really_load(context, *arguments)

    really_load, loads = ssl.SSLContext.load_verify_locations, []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    with tls() as requests:
        assert [send() for _ in range(3)] == [REQUEST_ID] * 3
    assert (len(loads), len(requests)) == (1, 3)


def test_certificates_that_changed_are_read_again(tls, tmp_path_factory):
    right = tls.certificate.read_bytes()
    other, _key = brokers.self_signed(tmp_path_factory.mktemp("other"))
    with tls() as requests:
        send()
        tls.certificate.write_bytes(other.read_bytes())
        with pytest.raises(NeverSent):
            send()
        tls.certificate.write_bytes(right)
        send()
    assert len(requests) == 2


def test_certificate_of_another_host_is_refused(tls):
    with tls() as requests:
        send()
    with tls(host="127.0.0.1") as requests, pytest.raises(NeverSent):
        send()
    assert requests == []


def test_cookie_of_an_answer_is_not_sent_with_the_next_request(tls):
    with tls() as requests:
        send()
        send()
    assert [b"cookie" in each.lower() for each in requests] == [False, False]
