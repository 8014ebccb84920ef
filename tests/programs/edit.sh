# sed -i, awk, patch, diff, ed-like rewriting
set -e
seq 10 > f; chmod 644 f
sed -i 's/^\(.\)$/<\1>/' f; cat f
sed -i.bak -e 2d -e '$a end' f; cat f; ls; cmp f f.bak || true
sed -n -i 3,5p f; cat f
ln -s f l; sed -i --follow-symlinks 's/</[/' l; readlink l; cat f
awk '{ s += NR; print > ("out-" NR % 2) } END { print s }' f.bak; cat out-0 out-1
awk 'BEGIN { while ((getline line < "f.bak") > 0) n++; print n; print "appended" >> "f"; close("f"); system("tail -n 1 f") }'
awk -F: '$3 < 3 { print $1 }' /etc/passwd | tee users | wc -l
seq 20 > a; sed 's/^1$/one/; 15d' a > b
diff -u a b | tail -n +3 > p || true
patch -s a p && cmp a b && echo patched
patch -s -R a p && seq 20 | cmp - a && echo reversed
diff -r . . && echo nothing differs
perl -pi -e 's/2/two/g' a; head -n 2 a
tr a-z A-Z < b > c; cmp b c || true
printf 'x\r\ny\r\n' > dos; tr -d '\r' < dos > unix; od -c unix
