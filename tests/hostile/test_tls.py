"""Certificates: a real Alertmanager over TLS with a certificate of its own, and what happens when they change."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.alertmanager import serve as alertmanager
from tests.support.binaries import find
from tests.support.processes import BedError, wait_until
from tests.support.service import Service, ServiceOptions, serve

PATIENCE = 20.0
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, home: Path) -> None:
        self._openssl = find("openssl")
        self._home = home
        self.file = home / "ca.pem"
        self._make("/CN=testbed CA", home / "ca.key", self.file, "-addext", "keyUsage=critical,keyCertSign")

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key, for a client and for a server on loopback; the files are replaced."""
        certificate, key = self._home / f"{name}.pem", self._home / f"{name}.key"
        signed = ("-CA", str(self.file), "-CAkey", str(self._home / "ca.key"))
        self._make(f"/CN={name}", key, certificate, *signed, "-addext", "subjectAltName=IP:127.0.0.1")
        return certificate, key

    def _make(self, subject: str, key: Path, certificate: Path, *more: str) -> None:
        files = ["-subj", subject, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run([self._openssl, "req", "-x509", *CURVE, *files, *more], check=True, capture_output=True)

    def client(self, name: str | None = None) -> ssl.SSLContext:
        """How a client reaches the server, with a certificate of its own if it is named."""
        context = ssl.create_default_context(cafile=str(self.file))
        if name is not None:
            context.load_cert_chain(*map(str, self.issue(name)))
        return context


@contextmanager
def serving(home: Path, authority: Authority) -> Iterator[Service]:
    """The service with a certificate, which wants one of its clients too, and a token."""
    certificate, key = authority.issue("server")
    catalog, config = home / "catalog.yaml", home / "config.yaml"
    catalog.write_text("remediations: []\n")
    tls = {"cert_file": str(certificate), "key_file": str(key), "client_ca_file": str(authority.file)}
    tokens = [{"name": role, "role": role, "value": f"secret-{role}"} for role in ("alertmanager", "admin")]
    config.write_text(json.dumps({"tls": tls, "auth": {"tokens": tokens}}))
    options = ServiceOptions(home / "data", catalog=[catalog], config=config, tls=authority.client("person"))
    with serve(home, options) as service:
        yield service


def serial(service: Service, authority: Authority) -> bytes:
    """Which certificate a new connection is shown."""
    context = authority.client("looker")
    stream = httpx.Client(verify=context, trust_env=False)
    with stream, stream.stream("GET", f"{service.url}/-/healthy") as answer:
        found: bytes = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(True)
        return found


def test_alertmanager_comes_in_with_its_certificate_and_its_token(tmp_path: Path) -> None:
    """A certificate alone is not enough, and neither is a token."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("alertmanager")
    with serving(tmp_path, authority) as service:
        settings = {
            "authorization": {"credentials": "secret-alertmanager"},
            "tls_config": {"ca_file": str(authority.file), "cert_file": str(certificate), "key_file": str(key)},
        }
        url = f"{service.url}/webhooks/alertmanager"
        config = {
            "route": {"receiver": "us", "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "us", "webhook_configs": [{"url": url, "http_config": settings}]}],
        }
        home = tmp_path / "alertmanager"
        home.mkdir()
        with alertmanager(home, json.dumps(config)) as sender:
            sender.push({"alertname": "Down"})
            admin = {"authorization": "Bearer secret-admin"}
            wait_until(
                lambda: service.get("/episodes", headers=admin).json()["items"], PATIENCE, "the alert to be taken in"
            )
        assert 401 == service.post("/webhooks/alertmanager", json={}).status_code
        with pytest.raises(httpx.TransportError):
            httpx.post(url, json={}, headers=admin, verify=authority.client(), trust_env=False)
        other = tmp_path / "other"
        other.mkdir()
        stranger = authority.client()
        stranger.load_cert_chain(*map(str, Authority(other).issue("stranger")))
        with pytest.raises(httpx.TransportError):
            httpx.post(url, json={}, headers=admin, verify=stranger, trust_env=False)


def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    """New connections see it; a file that is only half there changes nothing."""
    authority = Authority(tmp_path)
    with serving(tmp_path, authority) as service:
        first = serial(service, authority)
        certificate, _ = authority.issue("server")
        wait_until(lambda: serial(service, authority) != first, PATIENCE, "the new certificate")
        second = serial(service, authority)
        certificate.write_text(certificate.read_text()[:100])
        wait_until(lambda: "the certificate was not taken up" in service.logs, PATIENCE, "the half file to be seen")
        assert second == serial(service, authority)
        authority.issue("server")
        wait_until(lambda: serial(service, authority) != second, PATIENCE, "the third certificate")


@pytest.mark.parametrize("missing", ["cert_file", "client_ca_file"])
def test_a_file_that_cannot_be_used_is_said_at_the_start(tmp_path: Path, missing: str) -> None:
    """Which one, and why; nothing is served without it."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    tls = {"cert_file": str(certificate), "key_file": str(key), "client_ca_file": str(authority.file)}
    tls[missing] = str(tmp_path / "nothing.pem")
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"tls": tls, "catalog": [str(tmp_path / "catalog.yaml")]}))
    (tmp_path / "catalog.yaml").write_text("remediations: []\n")
    with (
        pytest.raises(BedError, match=rf"{missing} .*nothing\.pem"),
        serve(tmp_path, ServiceOptions(tmp_path / "data", config=config, tls=authority.client())),
    ):
        pass
