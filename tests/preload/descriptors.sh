# No descriptor of ours is among the low ones, nor in listings.
a=$(ls /proc/self/fd | wc -l); b=$(il ls /proc/self/fd | wc -l); test $a = $b && echo as many
il python3 -c '
import os
w = os.environ["D_IL_MOUNT_POINT"]
a = os.open(w + "/descriptors/f", os.O_CREAT | os.O_RDWR); b = os.open("/dev/null", os.O_RDONLY)
print(a, b)
os.closerange(3, 1000)
print(os.open("/dev/null", os.O_RDONLY), os.open(w + "/descriptors/f", os.O_RDWR))
print([n for n in range(10) if os.path.exists(f"/proc/self/fd/{n}")])
'
il python3 -c '
import os
w = os.environ["D_IL_MOUNT_POINT"]
f = os.open(w + "/descriptors/f", os.O_RDWR); os.pwrite(f, b"x", 0)
for place in "/proc/self/fd", "/proc/%d/fd" % os.getpid(), "/proc/thread-self/fd", "/proc/self/fdinfo", "/dev/fd":
  print(sorted(n for n in map(int, os.listdir(place)) if n < 10 or n > 900))
for n in os.listdir("/proc/self/fd"):
  if int(n) > 2:
    try: os.close(int(n))
    except OSError: pass
print(len(os.listdir(w + "/descriptors")))
'
