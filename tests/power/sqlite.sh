# Transactions of sqlite with each kind of journal: what was committed is there, whole, in order.
case $1 in
run) python3 - "$W" <<'PY'
import os, sqlite3, subprocess, sys
os.chdir(sys.argv[1])
bases = []
for journal in ("delete", "wal"):
    base = sqlite3.connect(journal + ".db", isolation_level=None)
    base.execute("pragma journal_mode=" + journal)
    base.execute("pragma synchronous=full")
    base.execute("create table t (n integer primary key, x blob)")
    bases.append(base)
for n in range(1, 21):
    for base in bases:
        base.execute("begin")
        base.execute("insert into t values (?, ?)", (n, b"%06d" % n * (50 + n * 37 % 900)))
        base.execute("update t set x = x where n = ?", (n // 2,))
        base.execute("commit")
    subprocess.run(["mark", str(n)], check=True)
PY
;;
check) python3 - "$W" "$2" <<'PY'
import os, sqlite3, sys
os.chdir(sys.argv[1])
done = int(sys.argv[2])
for journal in ("delete", "wal"):
    if done == 0 and not os.path.exists(journal + ".db"):
        continue
    base = sqlite3.connect(journal + ".db", isolation_level=None)
    assert base.execute("pragma integrity_check").fetchall() == [("ok",)], journal
    try:
        rows = base.execute("select n, x from t order by n").fetchall()
    except sqlite3.OperationalError:
        assert done == 0, journal
        continue
    assert len(rows) >= done, "%s: %d rows" % (journal, len(rows))
    for at, (n, x) in enumerate(rows, 1):
        assert n == at and x == b"%06d" % n * (50 + n * 37 % 900), "%s: row %d" % (journal, at)
    base.close()
PY
;;
esac
