"""PostgreSQL through a tunnel to its unix socket, under pgbench: every transaction that a client saw is there."""

import os
import pwd
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import pytest
import trio

from tests.tools import need
from tests.traffic.processes import Forwarding, forwarding, lasting, need_all, run, server

VERSIONS = sorted(glob("/usr/lib/postgresql/*/bin") + glob("/usr/pgsql-*/bin"), reverse=True)


def server_user() -> pwd.struct_passwd:
    """Choose who runs the server, which refuses root."""
    if os.geteuid():
        return pwd.getpwuid(os.geteuid())
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def as_user(user: pwd.struct_passwd) -> list[str]:
    """Give the words that make a command another user's."""
    if os.geteuid():
        return []
    return [need("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@dataclass(frozen=True, slots=True)
class Postgres:
    """The far end of a tunnel, as clients see it."""

    tunnel: Forwarding

    async def run(self, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run a client to its end."""
        return await run(
            [need(program, *VERSIONS), *arguments],
            stdin=stdin,
            PGHOST="localhost",
            PGPORT=str(self.tunnel.port),
            PGUSER="tester",
            PGDATABASE="postgres",
        )

    async def ask(self, query: str) -> str:
        """Give the answer to a query, in psql's shortest form."""
        printed = await self.run("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", query)
        return printed.decode().strip()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Postgres]:
    """Run a server that listens on a unix socket only, and a tunnel to it."""
    user = server_user()
    with tempfile.TemporaryDirectory(prefix="pt-") as place:  # where the server's user may go
        shutil.chown(place, user.pw_uid)
        prefix = as_user(user)
        data, path = f"{place}/data", f"{place}/.s.PGSQL.5432"
        initialise = [
            *prefix,
            need("initdb", *VERSIONS),
            "--no-sync",
            "--auth=trust",
            "--username=tester",
            data,
        ]
        await run(initialise)
        settings = [
            f"-c{setting}"
            for setting in (f"unix_socket_directories={place}", "listen_addresses=", "fsync=off")
        ]
        command = [*prefix, need("postgres", *VERSIONS), "-D", data, *settings]
        async with (
            server(command, lambda: os.path.exists(path)),
            forwarding(folder, f"unix:{path}") as tunnel,
        ):
            yield Postgres(tunnel)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A database with pgbench's tables."""
    need_all("initdb", "postgres", "pgbench", "psql", "setpriv", folders=VERSIONS)
    with lasting(opened(tmp_path_factory.mktemp("postgres"))) as database:
        trio.run(database.run, "pgbench", "--initialize", "--quiet")
        yield database


async def test_the_tables_were_filled_through_the_tunnel(postgres: Postgres) -> None:
    assert await postgres.ask("select count(*), sum(aid) from pgbench_accounts") == "100000|5000050000"


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(["--transactions=100"], id="kept"),
        pytest.param(["--transactions=25", "--connect"], id="new-for-each"),
        pytest.param(["--transactions=100", "--protocol=prepared"], id="prepared"),
    ],
)
async def test_pgbench_loses_no_transaction(postgres: Postgres, way: list[str]) -> None:
    per_client = int(way[0].partition("=")[2])
    await postgres.ask("truncate pgbench_history; update pgbench_branches set bbalance = 0")
    await postgres.run("pgbench", "--no-vacuum", "--client=8", "--jobs=2", *way)
    balanced = (
        "select count(*), sum(delta) = (select sum(bbalance) from pgbench_branches) from pgbench_history"
    )
    assert await postgres.ask(balanced) == f"{8 * per_client}|t"


async def test_a_bulk_copy_comes_back_as_it_went(postgres: Postgres) -> None:
    rows = b"".join(b"%d\t%s\n" % (number, b"%032x" % (number * 7919) * 32) for number in range(10_000))
    await postgres.ask("create table bulk (number int primary key, text text)")
    await postgres.run("psql", "--command", "copy bulk from stdin", stdin=rows)
    assert (
        await postgres.run("psql", "--quiet", "--command", "copy (table bulk order by number) to stdout")
        == rows
    )
