"""Redis over TLS: Debian's redis-server, since the wheel's Valkey is built without TLS."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from app.cli.doctor.servers import examine_redis
from app.kit.embedded.processes import free_ports
from app.kit.errors import UsageError
from app.kit.redis.client import open_redis
from demo.processes import wait_until
from tests.e2e.processes import require_binary
from tests.fakes.authority import Authority
from tests.integration.redis_shapes import PASSWORD, Node, running_nodes


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.certify("server", "127.0.0.1")
    made.certify("elsewhere", "127.0.0.2")
    made.certify("client", "127.0.0.3")
    return made


def options(authority: Authority, certificate: str = "server") -> list[str]:
    files = ["--tls-ca-cert-file", authority.path("ca.pem")]
    files += ["--tls-cert-file", authority.path(f"{certificate}.pem")]
    return [*files, "--tls-key-file", authority.path(f"{certificate}.key"), "--tls-auth-clients", "optional"]


class Secure(Node):
    """redis-server with a second port for TLS."""

    tls_port: int


def secure(folder: Path, name: str, authority: Authority, *more: str, certificate: str = "server") -> Secure:
    [tls_port] = free_ports(1)
    arguments = ["--tls-port", str(tls_port), *options(authority, certificate), *more]
    made = Secure(folder, name, arguments, program=require_binary("redis-server"))
    made.tls_port = tls_port
    return made


@pytest.fixture
async def server(authority: Authority, tmp_path: Path) -> AsyncIterator[Secure]:
    made = secure(tmp_path, "redis", authority)
    async with running_nodes([made]):
        yield made


async def fault(url: str) -> str | None:
    """What is wrong with the Redis at this URL; None: it reads and writes."""
    redis = open_redis(url, 5.0)
    try:
        found = await redis.fault()
        if found is None:
            await redis.keep("x", b"1", timedelta(minutes=1))
            assert await redis.read(["x", "y"]) == [b"1", None]
        return found
    finally:
        await redis.aclose()


LOGIN = f":{quote(PASSWORD, safe='')}@"


async def test_a_server_is_believed_by_its_authority_and_its_name(server: Secure, authority: Authority) -> None:
    ca = f"ssl_ca_certs={quote(authority.path('ca.pem'))}"
    own = f"ssl_certfile={authority.path('client.pem')}&ssl_keyfile={authority.path('client.key')}"
    url = f"rediss://{LOGIN}127.0.0.1:{server.tls_port}/1"
    assert await fault(f"{url}?{ca}") is None
    assert "certificate verify failed" in (await fault(url) or "")
    assert await fault(f"{url}?ssl_cert_reqs=none") is None
    assert await fault(url.replace("rediss", "redis")) is not None
    assert await fault(f"rediss://{LOGIN}127.0.0.1:{server.port}?{ca}") is not None

    await server.ask("CONFIG", "SET", "tls-auth-clients", "yes")
    assert await fault(f"{url}?{ca}") is not None, "it wants a certificate of ours"
    assert await fault(f"{url}?{ca}&{own}") is None

    other = ["tls-cert-file", authority.path("elsewhere.pem"), "tls-key-file", authority.path("elsewhere.key")]
    await server.ask("CONFIG", "SET", "tls-auth-clients", "optional", *other)
    assert "certificate is not valid for '127.0.0.1'" in (await fault(f"{url}?{ca}") or "")
    assert await fault(f"{url}?{ca}&ssl_check_hostname=false") is None
    finding = await examine_redis(f"{url}?{ca}", embedded=False)
    assert finding.level == "warn"
    assert finding.detail.startswith(f"standalone at rediss://127.0.0.1:{server.tls_port}/1: ")
    assert "certificate is not valid" in finding.detail
    assert PASSWORD not in finding.detail


async def test_files_that_cannot_be_used_are_named_at_the_start(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for query in (
        "ssl_ca_certs=/no/such/ca.pem",
        f"ssl_ca_certs={tmp_path}/empty.pem",
        f"ssl_certfile={authority.path('client.pem')}&ssl_keyfile={authority.path('server.key')}",
    ):
        with pytest.raises(UsageError, match=r"^GATEWAY_REDIS_URL: .*(ca|empty|client)\.pem.* cannot be used: "):
            open_redis(f"rediss://127.0.0.1?{query}", 1.0)


async def test_sentinels_and_their_master_speak_tls(authority: Authority, tmp_path: Path) -> None:
    master = secure(tmp_path, "master", authority, "--tls-replication", "yes")
    watcher = secure(tmp_path, "watcher", authority)
    lines = [f"{name[2:]} {value}" for name, value in zip(*[iter(options(authority))] * 2, strict=True)]
    lines += [f"port {watcher.port}", f"tls-port {watcher.tls_port}", "bind 127.0.0.1", "tls-replication yes"]
    lines += [f"sentinel monitor memory 127.0.0.1 {master.tls_port} 1", f'sentinel auth-pass memory "{PASSWORD}"']
    (tmp_path / "conf").write_text("\n".join([*lines, f'requirepass "{PASSWORD}"', ""]))
    watcher.arguments = [str(tmp_path / "conf"), "--sentinel"]
    async with running_nodes([master, watcher]):
        query = f"ssl_ca_certs={authority.path('ca.pem')}&sentinel_password={quote(PASSWORD, safe='')}"
        url = f"rediss+sentinel://{LOGIN}127.0.0.1:{watcher.tls_port}/memory?{query}"
        assert await fault(url) is None
        assert "the Sentinels know no master named other" in (await fault(url.replace("/memory", "/other")) or "")
        assert "no Sentinel answers" in (await fault(url.replace("rediss+", "redis+").split("?")[0]) or "")


async def test_a_cluster_speaks_tls(authority: Authority, tmp_path: Path) -> None:
    [bus] = free_ports(1)
    cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", str(bus)]
    node = secure(tmp_path, "node", authority, *cluster)
    async with running_nodes([node]):
        await node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        url = f"rediss+cluster://{LOGIN}127.0.0.1:{node.tls_port}?ssl_ca_certs={authority.path('ca.pem')}"

        async def whole() -> bool:
            return "cluster_state:ok" in await node.ask("CLUSTER", "INFO")

        await wait_until("the Cluster", whole, within=60)
        assert await fault(url) is None
