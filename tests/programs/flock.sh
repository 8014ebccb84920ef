# flock(1): exclusive, shared, conflicts, timeouts, by descriptor
set -e
flock lock true && echo taken
flock lock sh -c 'flock -n lock true || echo busy'
flock -s lock sh -c 'flock -s -n lock true && echo shared; flock -x -n lock true || echo not exclusive'
flock -w 1 -E 9 lock true && echo waited
exec 9> lock2; flock 9; flock -n lock2 true || echo held; flock -u 9; flock -n lock2 true && echo released; exec 9>&-
echo 0 > n
for i in 1 2 3 4 5 6 7 8; do (for j in 1 2 3 4 5; do flock lock sh -c 'x=$(cat n); echo $((x + 1)) > n'; done) & done; wait
cat n
mkdir d; flock d echo directory lock
(flock -x 8; sleep 5) 8> lock3 & pid=$!; sleep 0.3; flock -n lock3 true || echo child holds it
pkill -P $pid sleep 2>/dev/null || true; kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true; flock -w 5 lock3 echo free again
