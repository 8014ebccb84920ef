# Directories above the mount point that the kernel lacks: seen, listed and walked through, never changed.
M=/pil4dfs-absent/deep/mnt
run() { LD_PRELOAD=$PRELOAD D_IL_MOUNT_POINT=$M D_IL_POOL=tank D_IL_CONTAINER=c1 "$@" 2>&1; }
run mkdir -p $M/above/x; ls -d /pil4dfs-absent 2> /dev/null || echo not in the kernel
run ls -a /pil4dfs-absent; run ls /pil4dfs-absent/deep; run stat -c '%n %F %a' /pil4dfs-absent /pil4dfs-absent/deep/
run find /pil4dfs-absent -maxdepth 2; run find /pil4dfs-absent -path '*/above*' | sort
run sh -c 'cd /pil4dfs-absent; /bin/pwd; cd deep; pwd; ls; cd mnt/above; /bin/pwd; ls; cd ../..; /bin/pwd; cd ..; ls; cd ../usr; /bin/pwd'
run realpath $M/above/../../..; run readlink -f /pil4dfs-absent/deep/mnt/../; run /usr/bin/test -x /pil4dfs-absent/deep && echo enterable
run touch /pil4dfs-absent/f; run mkdir /pil4dfs-absent; run mkdir /pil4dfs-absent/d; run rmdir /pil4dfs-absent/deep
run chmod 700 /pil4dfs-absent; run mv /pil4dfs-absent /elsewhere
run sh -c 'cd /pil4dfs-absent; touch f; mkdir d; ls -A'
run python3 -c '
import os
a = os.open("/pil4dfs-absent", os.O_RDONLY | os.O_DIRECTORY); b = os.open("deep", os.O_PATH, dir_fd=a)
c = os.open("mnt", os.O_RDONLY, dir_fd=b)
print(os.listdir(a), os.listdir(a), "above" in os.listdir(c), "usr" in os.listdir(os.open("..", os.O_RDONLY, dir_fd=a)))
print(os.listdir(os.open("..", os.O_RDONLY, dir_fd=b)), os.path.samefile("/pil4dfs-absent/deep", "/pil4dfs-absent/deep/mnt/.."))
os.fchdir(b); print(os.getcwd(), os.readlink("/proc/self/cwd"), os.readlink("/proc/self/fd/%d" % a))
for step in lambda: os.mkdir("d"), lambda: os.open("f", os.O_CREAT | os.O_WRONLY), lambda: os.unlink("mnt"), lambda: os.mkdir("d", dir_fd=a):
  try: step(); print("changed")
  except OSError as e: print(e.strerror)
print([top for top, _, _ in os.walk("/pil4dfs-absent") if "above" not in top][:3])'
# And a directory that the kernel has shows the mount point, once, wherever it is read from.
mkdir -p seen/other; M=$T/seen/mnt
run ls seen; run sh -c 'cd seen && echo * && echo */ && find . -maxdepth 1 | sort | tr "\n" " "'
run python3 -c '
import os
d = os.open("seen", os.O_RDONLY); print(sorted(os.listdir(d)), sorted(os.listdir(d)), sorted(e.name for e in os.scandir("seen") if e.is_dir()))'
ls seen; M=/pil4dfs-absent/deep/mnt; run rm -r $M/above
