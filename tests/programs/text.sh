# dd, tail, head, sort -o, uniq, cut, paste, join, split, wc, tac, tee, od, sha256sum, shuf, comm
set -e
seq 1 20000 > n
dd if=n of=d bs=7 count=1000 skip=3 seek=5 status=none && sha256sum d
dd if=n of=d bs=4k conv=notrunc oflag=append status=none && sha256sum d
dd if=/dev/zero of=z bs=1M count=4 conv=fsync status=none && stat -c %s z
tail -n 3 n
tail -c 20 n
tail -n +19998 n
head -c 10 n
sort -rn -o n n && head -n 2 n
sort -o sorted n && sort -c sorted && wc -l sorted
sort -S 64k -T . n > s2 && cmp sorted s2
uniq -c sorted | tail -n 1
cut -c1-2 sorted | sort -u | wc -l
paste sorted n | sed -n 5p
join sorted sorted | wc -l
split -l 3000 n part- && ls part-* && cat part-* | cmp - n && echo split ok
tac n | head -n 1
echo teed | tee t1 t2 > t3 && cat t1 t2 t3
od -c t1
sha256sum n sorted > sums && sha256sum -c sums
comm -12 sorted s2 | wc -l
(sleep 0.2; echo late >> t1) & tail -f -n 0 --pid=$! t1 2>/dev/null | head -n 1
wait
nl t2; fold -w 3 t2; expand t2; rev t2
csplit -s n /19990/ && ls xx* && wc -l xx00
