"""The benchmark works, and gives no figures for wrong responses. These tests do not assert what it measures."""

import os
import re
import shutil
import socket
import sys
from pathlib import Path
from threading import Thread

import pytest

from tests.bakery import PROJECT, PYTHONS, ROOT, bake, lend_environment, run
from tests.bench.load import Load, Request, WrongAnswer
from tests.bench.peers import APPS

BENCH = [sys.executable, "-m", "tests.bench", "--quick", "--only"]
RIGHT = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nright"
FIGURES = re.compile(
    r"(?P<name>\S+(?: \S+)*)(?:  +(?P<against>[a-zA-Z]\S*(?: \S+)*))? +\d+\.\d+(?: ±\d+\.\d+)? +\d+\.\d+(?: ±\d+\.\d+)?"
    r" +(?P<per_second>[\d,]+) +(?P<cpu>[\d,]+) +– +[\d,]+\.\d +[\d,]+\.\d +(?P<megabytes>\d+)"
)


two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="takes one core for the server, one for the load"
)


@two_cores
def test_a_table_has_a_line_with_all_figures_for_each_case() -> None:
    table = run([*BENCH, "open", "dict", "hot", "malformed", "changes"], ROOT)
    found = [match for match in map(FIGURES.fullmatch, table.splitlines()) if match]
    assert [(match["name"], match["against"]) for match in found] == [
        ("no authentication", None),
        ("a dict behind HTTPBearer", "no authentication"),
        ("hot key", "no authentication"),
        ("hot key", "a dict behind HTTPBearer"),
        ("malformed key", "no authentication"),
        ("malformed key", "hot key"),
        ("hot keys, 0 changes/s", None),
        *((f"hot keys, {number}/s", "hot keys, 0 changes/s") for number in ("1 change", "4 changes", "20 changes")),
    ]
    for match in found:
        assert all(int(match[name].replace(",", "")) > 0 for name in ("per_second", "cpu", "megabytes"))
    assert len(re.findall(r"^hot keys, \d+ changes?/s: \d+ lookups? for [\d,]+ requests$", table, re.MULTILINE)) == 4
    assert "\n500 concurrent requests with one key that is not cached: 1 lookup\n" in table
    assert re.search(
        r"^idle worker: \d+\.\d ms of CPU per second\nimport app\.main: \d\.\d\d s of CPU$", table, re.MULTILINE
    )


SCALE = r"""
\S+, 1,000 users and keys, 10,000 hours of usage, 5,000 events
idle worker: \d+\.\d ms of CPU per second
import app\.main: \d\.\d\d s of CPU
python -m app --help: \d\.\d\d s of CPU
(?:list, .*: [\d.]+ ms
){7}last-admin check, in a change of a user: [\d.]+ ms
changes of a key, nothing else: [\d.]+ ms each, at most [\d.]+ ms
keys list: [\d.]+ s, [\d.]+ s of CPU, \d+ MB, OTHERS
/health/ready during 64 slow requests \(\d+ of them served\): \d of 5 responses are 200
flush of 1,000 counters: 200 1000 in STALL, OTHERS
purge: 200 1000 in STALL, OTHERS
revoke all keys of a user: 200 {"revoked":1\d\d} in STALL, OTHERS
""".replace("OTHERS", r"other changes × [\d.]+, at most [\d.]+ ms").replace(
    "STALL", r"[\d.]+ s, CPU [\d.]+ s \(database [\d.]+ s\), longest stall [\d.]+ ms \(CPU [\d.]+ ms\), [+-]\d+ MB"
)


@two_cores
def test_jobs_on_large_tables_have_a_line_each() -> None:
    servers = {"TEST_DATABASE_URL": os.environ.get("TEST_DATABASE_URL", "")}
    table = run([*BENCH, "scale"], ROOT, **servers)
    titles = [text.strip().partition(",")[0] for text in re.findall(SCALE, table)]
    assert titles == (["SQLite", "PostgreSQL"] if servers["TEST_DATABASE_URL"] else ["SQLite"]), table


@two_cores
def test_there_are_no_figures_if_the_server_rejects_the_key() -> None:
    with pytest.raises(AssertionError) as failed:
        run([*BENCH, "hot"], ROOT, API_KEY_LOCATIONS="header")  # the key is sent as a bearer
    assert "ended with 1" in str(failed.value)
    assert "No figures, because of a wrong answer. hot key: expected HTTP/1.1 200" in str(failed.value)
    assert "not_authenticated" in str(failed.value)
    assert not any(map(FIGURES.fullmatch, str(failed.value).splitlines()))


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (RIGHT.replace(b"200 OK", b"403 Forbidden"), "403 Forbidden"),
        (RIGHT.replace(b"right", b"wrong"), "wrong"),
        (RIGHT.replace(b"5", b"6") + b"!", "right!"),
        (b"", "closed the connection"),
        (RIGHT[:-1], "closed the connection"),
    ],
    ids=["status", "body", "length", "nothing", "half"],
)
def test_a_wrong_response_after_right_ones_ends_the_burst(last: bytes, why: str) -> None:
    client, server = socket.socketpair()

    def serve() -> None:
        with server:
            for answer in (RIGHT, RIGHT, last):
                server.recv(1000)
                server.sendall(answer)

    thread = Thread(target=serve)
    thread.start()
    with client, pytest.raises(WrongAnswer, match=why):
        Load([client], Request("/", ["key"], 200, "right")).burst(seconds=10)
    thread.join()


def test_the_files_that_the_benchmark_adds_pass_the_checks_of_the_project(tmp_path: Path) -> None:
    project = bake(tmp_path / "baked")
    lend_environment(project, [*PYTHONS.values()][-1])
    files = ["bench_app.py", "bench_fill.py", "bench_item.py", "bench_scale.py", "bench_seed.py"]
    for file in files:
        shutil.copy(APPS / file, project)
    run([".venv/bin/mypy", *files], project)


# How the README quotes a line of the page, that of SQLite if there are two.
QUOTED = {
    "hot key": r"\*\*(0\.\d+)\*\*;",
    "hot key, no cache": r"; (0\.\d+) if each request queries the database",
    "a dict behind HTTPBearer": r"`HTTPBearer` reaches (0\.\d+)",
    "a dependency that does nothing": r"a dependency that does nothing (0\.\d+)",
    "fastapi-simple-security 1.3.0": r"\| fastapi-simple-security 1\.3\.0 .* (0\.\d+) \|",
    "fastapi-sqlmodel-security 1.0.1": r"\| fastapi-sqlmodel-security 1\.0\.1 .* (0\.\d+) \|",
    "keyshield 2.0.1, cached, not sleeping": r"\| keyshield 2\.0\.1 .* (0\.\d+) \|",
    "bcrypt at each request": r"(0\.\d+) with bcrypt \|",
}


def test_the_readme_quotes_the_page() -> None:
    page = (PROJECT / "docs/performance.md").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    for name, words in QUOTED.items():
        measured = re.search(rf"^ +{re.escape(name)}  +no authentication +(\d\.\d+)", page, re.MULTILINE)
        quoted = re.search(words, readme)
        assert measured, name
        assert quoted, name
        digits = len(quoted[1].partition(".")[2])
        assert quoted[1] == f"{float(measured[1]):.{digits}f}", name
