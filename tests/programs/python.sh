# python: mmap, subprocess, multiprocessing (fork and spawn), tempfile, shutil, sqlite3, import, os
# tree: names
# seconds: 180
set -e
export PYTHONDONTWRITEBYTECODE=1
mkdir pkg; echo 'VALUE = 42' > pkg/__init__.py; echo 'from pkg import VALUE
def work(n):
    with open(f"w{n}", "w") as f: f.write(str(n * VALUE))
    return n * n' > pkg/mod.py
cat > main.py <<'END'
import mmap, os, subprocess, sys, tempfile, shutil, sqlite3, pathlib, fcntl, json, glob, io, stat, multiprocessing as mp
from pkg.mod import work
def section(name): print("==", name, flush=True)
if __name__ == "__main__":
    section("mmap")
    with open("m", "w+b") as f:
        f.truncate(100000)
        with mmap.mmap(f.fileno(), 0) as m:
            m[10:15] = b"hello"; m.flush()
            f.seek(10); print(f.read(5))
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m: print(m.find(b"hello"))
    section("subprocess")
    print(subprocess.run(["cat", "pkg/__init__.py"], capture_output=True, text=True).stdout.strip())
    with open("out", "w") as o: subprocess.run(["echo", "to file"], stdout=o, check=True)
    with open("out") as i: print(subprocess.run(["wc", "-c"], stdin=i, capture_output=True, text=True).stdout.strip())
    print(subprocess.check_output("cat out | tr a-z A-Z", shell=True, text=True).strip())
    print(subprocess.run(["pwd"], cwd="pkg", capture_output=True, text=True).stdout.strip().endswith("/pkg"))
    print(subprocess.run(["cat", "main.py"], stdout=subprocess.DEVNULL, close_fds=True).returncode)
    for method in ("fork", "spawn", "forkserver"):
        section(method)
        with mp.get_context(method).Pool(3) as pool: print(pool.map(work, range(6)), sorted(glob.glob("w?")))
        for name in glob.glob("w?"): os.unlink(name)
    section("tempfile")
    with tempfile.TemporaryDirectory(dir=".") as d:
        with tempfile.NamedTemporaryFile(dir=d) as t: t.write(b"x" * 5000); t.flush(); print(os.path.getsize(t.name))
        with tempfile.TemporaryFile(dir=d) as t: t.write(b"abc"); t.seek(0); print(t.read())
    print(glob.glob("tmp*"))
    section("shutil")
    os.makedirs("tree/a/b"); pathlib.Path("tree/a/f").write_text("text"); os.symlink("f", "tree/a/l"); os.chmod("tree/a/f", 0o640)
    shutil.copytree("tree", "copy", symlinks=True); print(sorted(str(p) for p in pathlib.Path("copy").rglob("*")))
    print(oct(os.stat("copy/a/f").st_mode), os.readlink("copy/a/l")); shutil.move("copy", "moved"); shutil.rmtree("moved"); print(os.path.exists("moved"))
    shutil.make_archive("arch", "tar", "tree"); shutil.unpack_archive("arch.tar", "un"); print(os.listdir("un")); print(shutil.disk_usage(".").total > 0)
    section("sqlite3")
    for mode in ("delete", "wal"):
        c = sqlite3.connect("s.db"); print(c.execute(f"pragma journal_mode={mode}").fetchone())
        with c: c.execute("create table if not exists t(x)"); c.executemany("insert into t values(?)", [(i,) for i in range(1000)])
        print(c.execute("select count(*), sum(x) from t").fetchone()); c.close()
    section("os")
    fd = os.open("raw", os.O_CREAT | os.O_RDWR); os.pwrite(fd, b"0123456789", 5); print(os.pread(fd, 4, 7), os.fstat(fd).st_size)
    print(os.preadv(fd, [bytearray(3), bytearray(4)], 5), os.writev(fd, [b"a", b"bc"])); os.posix_fallocate(fd, 0, 4096); print(os.fstat(fd).st_size)
    src = os.open("main.py", os.O_RDONLY); print(os.copy_file_range(src, fd, 100, 0, 0), os.sendfile(fd, src, 0, 50)); os.ftruncate(fd, 3)
    fcntl.flock(fd, fcntl.LOCK_EX); fcntl.lockf(fd, fcntl.LOCK_EX); print(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
    r, w = os.pipe(); pid = os.fork()
    if pid == 0: os.write(fd, b"child"); os._exit(0)
    os.waitpid(pid, 0); print(os.lseek(fd, 0, os.SEEK_END)); os.close(fd)
    with os.scandir("tree/a") as it: print(sorted((e.name, e.is_symlink(), e.is_dir()) for e in it))
    print(sum(len(f) for _, _, f in os.walk("tree")), os.path.samefile("tree/a/f", "tree/a/l"), os.path.realpath("tree/a/l").endswith("tree/a/f"))
    os.replace("raw", "raw2"); os.link("raw2", "raw3"); print(os.stat("raw3").st_nlink); os.utime("raw2", ns=(5, 7)); print(os.stat("raw2").st_mtime_ns)
    try: os.rmdir("tree")
    except OSError as e: print(e.errno, e.strerror)
    try: open("none")
    except FileNotFoundError as e: print(e.filename)
    os.setxattr("raw2", "user.k", b"v"); print(os.getxattr("raw2", "user.k"), os.listxattr("raw2"))
    section("threads")
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as ex: print(sum(ex.map(work, range(50)))); print(len(glob.glob("w*")))
    for n in glob.glob("w*"): os.unlink(n)
    json.dump({"a": [1, 2]}, open("j", "w")); print(json.load(open("j")))
    import zipfile, gzip
    with zipfile.ZipFile("z.zip", "w") as z: z.write("main.py")
    with gzip.open("g.gz", "wb") as g: g.write(b"data" * 10000)
    print(len(gzip.open("g.gz").read()), zipfile.ZipFile("z.zip").testzip())
END
python3 main.py
python3 -c 'import pkg.mod; print(pkg.mod.VALUE)'
python3 -m py_compile pkg/mod.py && ls pkg/__pycache__ | wc -l
python3 -m venv --without-pip v && v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'
rm -rf v s.db-*
