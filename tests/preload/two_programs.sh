# Two processes at once: names, contents, removal and locks are seen at once by the other.
il python3 - "$W" <<'END' &
import os, sys, time, fcntl
os.chdir(sys.argv[1])
def wait(name):
    end = time.time() + 20
    while not os.path.exists(name):
        if time.time() > end: sys.exit(f"no {name}")
        time.sleep(0.001)
wait("go"); print(open("go").read().strip()); f = open("locked", "w"); fcntl.flock(f, fcntl.LOCK_EX)
open("ready.tmp", "w").write("locked"); os.rename("ready.tmp", "ready"); wait("tried"); os.unlink("go"); fcntl.flock(f, fcntl.LOCK_UN)
open("done.tmp", "w").close(); os.rename("done.tmp", "done")
END
il python3 - "$W" <<'END'
import os, sys, time, fcntl
os.chdir(sys.argv[1])
open("go.tmp", "w").write("hello\n"); os.rename("go.tmp", "go")
end = time.time() + 20
while not os.path.exists("ready") and time.time() < end: time.sleep(0.001)
f = open("locked", "a")
try: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); out = "free"
except BlockingIOError: out = "held"
open("tried", "w").close(); fcntl.flock(f, fcntl.LOCK_EX)
while not os.path.exists("done") and time.time() < end: time.sleep(0.001)
time.sleep(0.05); print(out, os.path.exists("go"))
END
wait
