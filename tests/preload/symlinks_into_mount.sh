# Symbolic links outside that lead into the mount, whatever the kernel has at the mount point.
cd "$T"
round() {
    ln -s "$M" link; ln -s "$M/w/file" tofile; ln -s "$M/w/new" tonew;
    at sh -c 'mkdir -p "$M/w"; echo inside > "$M/w/file"; cd "$M/w"; ln -s "$T/tofile" out; ln -s "$T/loop" loop'
    ln -s "$M/w/loop" loop
    at sh -c 'cat tofile link/w/file; cat "$M/w/out"; ls link/w; cat loop'
    at sh -c 'echo one > tonew; mkdir link/w/dir; echo two > link/w/dir/x; ln -s a link/w/sym; cp tofile link/w/copy; mv link/w/copy link/w/moved; echo "$(ls -A "$M/w")"'
    at sh -c 'cd link && pwd -P && echo three > w/relative && cat w/relative && rm w/relative' | sed "s,$T,T,"
    at sh -c 'echo four > "$T/../$(basename "$T")/m/w/dotdot"; cat "$M/w/dotdot"; rm "$M/w/dotdot"; test link/w -ef "$M/w" && echo same; stat -c %d link/. "$M" | uniq | wc -l'
    at rm -r "$M/w" && at test ! -e tonew && echo removed
    rm link tofile tonew loop
}
at() { M=$M LD_PRELOAD=$PRELOAD D_IL_MOUNT_POINT=$M D_IL_POOL=tank D_IL_CONTAINER=c1 "$@"; }
M=$T/m
echo absent; round 2>&1
mkdir m
echo empty; round 2>&1; ls -A m
mkdir m/w; echo hidden > m/w/file
echo hidden; round 2>&1; find m -type f; cat m/w/file
echo started inside; cd m
at sh -c 'mkdir s; cd s; pwd; echo data > f; exec env ls' | sed "s,$T,T,"; at cat s/f; at python3 -c 'import os; print(os.listdir("s"), os.getcwd() == os.environ["M"])'; at rm -r s; ls
