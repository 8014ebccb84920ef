#!/usr/bin/env python3
"""What programs pay for durability: "ROW NANOSECONDS" lines on stdout, one process, in an empty directory.

    durable.py DIR

fsync_append_4k: an append of 4 KiB and fsync. sqlite_full: an insert with synchronous=FULL, the usual journal.
git_commit: git add and git commit with core.fsync=all.
"""
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time


def row(name, calls, call):
    spent = []
    for n in range(calls):
        start = time.perf_counter_ns()
        call(n)
        spent.append(time.perf_counter_ns() - start)
    print(name, statistics.median(spent), flush=True)


base = "%s/durable-%d" % (sys.argv[1], os.getpid())
os.mkdir(base)
os.chdir(base)

log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
page = b"x" * 4096


def append(_):
    os.write(log, page)
    os.fsync(log)


row("fsync_append_4k", 60, append)
os.close(log)

data = sqlite3.connect("data.db", isolation_level=None)
data.execute("pragma synchronous=full")
data.execute("create table t (n integer primary key, x text)")
row("sqlite_full", 60, lambda n: data.execute("insert into t values (?, ?)", (n, "x" * 100)))
data.close()

os.environ.update(GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b")


def git(*args):
    subprocess.run(("git",) + args, check=True, stdout=subprocess.DEVNULL)


git("init", "-q", "work")
os.chdir("work")
git("config", "core.fsync", "all")
git("config", "gc.auto", "0")


def commit(n):
    with open("file%d" % (n % 5), "w") as file:
        file.write("content %d\n" % n)
    git("add", ".")
    git("commit", "-q", "-m", "number %d" % n)


row("git_commit", 12, commit)
os.chdir("/")
shutil.rmtree(base)
