# What careful programs do: a file replaced by renaming, a growing log, a mapped file, a file written with O_SYNC.
# Each line of work that has been made durable is marked; after a failure at least that is there.
case $1 in
run) python3 - "$W" <<'PY'
import mmap, os, subprocess, sys
os.chdir(sys.argv[1])
def mark(n):
    subprocess.run(["mark", str(n)], check=True)
def content(n):
    return b"%06d " % n * (40 + n * 97 % 1500)
here = os.open(".", os.O_RDONLY)
log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
sync = os.open("sync", os.O_CREAT | os.O_WRONLY | os.O_SYNC, 0o644)
mapped = os.open("mapped", os.O_CREAT | os.O_RDWR, 0o644)
os.ftruncate(mapped, 4 * 4096)
os.fsync(mapped)
memory = mmap.mmap(mapped, 4 * 4096)
for n in range(1, 25):
    new = os.open("new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.write(new, content(n))
    os.fsync(new)
    os.close(new)
    os.rename("new", "state")
    os.fsync(here)
    os.write(log, b"line %06d %s\n" % (n, b"x" * (n * 131 % 700)))
    os.fdatasync(log)
    for page in range(4):
        memory[page * 4096:page * 4096 + 6] = b"%06d" % n
    memory.flush()
    os.pwrite(sync, b"%06d" % n, n * 6)
    mark(n)
PY
;;
check) python3 - "$W" "$2" <<'PY'
import os, sys
os.chdir(sys.argv[1])
done = int(sys.argv[2])
def content(n):
    return b"%06d " % n * (40 + n * 97 % 1500)
def read(name):
    try:
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        assert done == 0, name + " is missing"
        return b""
state = read("state")
assert state or done == 0, "an empty state"
if state:
    number = int(state[:6])
    assert number >= done and state == content(number), "state %d, %d bytes" % (number, len(state))
lines = read("log")
for n in range(1, done + 1):
    line = b"line %06d %s\n" % (n, b"x" * (n * 131 % 700))
    assert lines.startswith(line), "line %d of the log" % n
    lines = lines[len(line):]
mapped = read("mapped")
for page in range(4 if done else 0):
    assert int(mapped[page * 4096:page * 4096 + 6]) in (done, done + 1), "page %d" % page
sync = read("sync")
for n in range(1, done + 1):
    assert sync[n * 6:n * 6 + 6] == b"%06d" % n, "written with O_SYNC: %d" % n
PY
;;
esac
