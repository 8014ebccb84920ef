# Each call that makes something durable, by itself: after a failure what it had promised is there. A round makes each
# of them once, the one that flushes whole ranks first, and marks each; what the calls after it flush is their own.
case $1 in
run) python3 - "$W" <<'PY'
import ctypes, mmap, os, subprocess, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
SIZE, LARGE = 3500, 700000
def check(code):
    if code < 0:
        raise OSError(ctypes.get_errno(), "a call failed")
def content(n, size=SIZE):
    return b"%06d " % n * (size // 7)
def write(name, n, size=SIZE, flags=0):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY | flags, 0o644)
    os.pwrite(fd, content(n, size), 0)
    return fd
def flushed(fd, flush=os.fsync):
    flush(fd)
    os.close(fd)
def at_once(name, n, flag):
    fd = os.open(name, os.O_WRONLY)
    os.pwritev(fd, [content(n)], 0, flag)
    os.close(fd)
marks = 0
def mark():
    global marks
    marks += 1
    subprocess.run(["mark", str(marks)], check=True)
for name in ("range", "rwf_dsync", "rwf_sync", "osync", "odsync", "copied", "fdatasync", "fsync", "msync", "async"):
    os.close(write(name, 0))
os.close(write("large", 0, LARGE))
check(libc.syncfs(os.open(".", os.O_RDONLY)))
mapped, loose = os.open("msync", os.O_RDWR), os.open("async", os.O_RDWR)
memory, later = mmap.mmap(mapped, SIZE), mmap.mmap(loose, SIZE)
for n in range(1, 7):
    flushed(write("large", n, LARGE), os.fdatasync)
    mark()
    fd = write("range", n)
    check(libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(SIZE), 7))
    os.close(fd)
    mark()
    at_once("rwf_dsync", n, os.RWF_DSYNC)
    mark()
    at_once("rwf_sync", n, os.RWF_SYNC)
    mark()
    os.close(write("osync", n, SIZE, os.O_SYNC))
    mark()
    os.close(write("odsync", n, SIZE, os.O_DSYNC))
    mark()
    source, target = os.open("osync", os.O_RDONLY), os.open("copied", os.O_WRONLY | os.O_DSYNC)
    os.copy_file_range(source, target, SIZE, 0, 0)
    os.close(source)
    os.close(target)
    mark()
    flushed(write("fdatasync", n), os.fdatasync)
    mark()
    flushed(write("fsync", n))
    mark()
    memory[:] = content(n)
    memory.flush()
    mark()
    # MS_ASYNC promises nothing; fsync after it does.
    later[:] = content(n)
    check(libc.msync(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(later))), ctypes.c_size_t(SIZE), 1))
    os.fsync(loose)
    mark()
    # A new name: the file is flushed, then its directory.
    os.makedirs("d%d" % n)
    flushed(write("d%d/new" % n, n))
    flushed(os.open("d%d" % n, os.O_RDONLY))
    flushed(os.open(".", os.O_RDONLY))
    mark()
    # In another's place: the file is flushed, then the directory.
    flushed(write("temporary", n))
    os.rename("temporary", "replaced")
    flushed(os.open(".", os.O_RDONLY))
    mark()
    # Everything, of two kinds.
    os.close(write("syncfs", n))
    fd = os.open("d%d" % n, os.O_RDONLY)
    check(libc.syncfs(fd))
    os.close(fd)
    mark()
    os.close(write("sync", n))
    os.sync()
    mark()
PY
;;
check) python3 - "$W" "$2" <<'PY'
import os, sys
os.chdir(sys.argv[1])
done = int(sys.argv[2])
SIZE, LARGE = 3500, 700000
names = ("large", "range", "rwf_dsync", "rwf_sync", "osync", "odsync", "copied", "fdatasync", "fsync", "msync", "async",
         "new", "replaced", "syncfs", "sync")
def content(n, size=SIZE):
    return b"%06d " % n * (size // 7)
def read(name, needed):
    try:
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        assert not needed, name + " is missing"
        return b""
def rounds(name):
    return (done - names.index(name) - 1) // len(names) + 1
for name in names[:11] + names[13:]:
    n, size = rounds(name), LARGE if name == "large" else SIZE
    bytes = read(name, n)
    if n == 0:
        continue
    # Of that round, or of the next, which had begun: sector by sector.
    old, new = content(n, size), content(n + 1, size)
    assert len(bytes) == size, "%s: %d bytes" % (name, len(bytes))
    for at in range(0, size, 512):
        part = slice(at, at + 512)
        assert bytes[part] in (old[part], new[part]), "%s, byte %d: %r after round %d" % (name, at, bytes[at:at + 7], n)
for n in range(1, rounds("new") + 1):
    assert read("d%d/new" % n, True) == content(n), "d%d/new" % n
n = rounds("replaced")
replaced = read("replaced", n)
if n or replaced:
    number = int(replaced[:6])
    assert number >= n and replaced == content(number), "replaced: %d, %d bytes" % (number, len(replaced))
PY
;;
esac
