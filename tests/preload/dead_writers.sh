# Programs killed in the middle of their work leave everything whole for the next one.
for i in $(seq 20); do
  # The program itself is the process that is killed, not a shell before it.
  (LD_PRELOAD=$PRELOAD D_IL_MOUNT_POINT=$MNT D_IL_POOL=tank D_IL_CONTAINER=c1 exec python3 -c '
import os, sys
os.chdir(sys.argv[1]); i = 0
while True:
    i += 1
    with open("t", "w") as f: f.write("whole\n" * 1000)
    os.rename("t", "f%d" % (i % 50)); os.makedirs("d/%d" % (i % 10), exist_ok=True)
    if i > 20: os.rmdir("d/%d" % (i % 10))
' $W 2> /dev/null) & pid=$!
  sleep 0.$((RANDOM % 3 + 1)); kill -9 $pid; wait $pid 2> /dev/null
done
il python3 -c '
import os, sys
os.chdir(sys.argv[1]); names = [n for n in os.listdir(".") if n[0] == "f"]
print(len(names) > 0, all(open(n).read() == "whole\n" * 1000 for n in names))' $W
il rm -r $W && il ls -d $W 2> /dev/null || echo gone
