# find, xargs, grep -r, locate by every attribute
set -e
mkdir -p t/a/b/c t/d t/.hidden
for i in $(seq 200); do echo "line $i of the haystack" > t/a/f$i; done
echo needle > t/a/b/c/deep; echo Needle > t/.hidden/x; ln -s ../a t/d/l; : > t/empty
touch -d '2010-01-01' t/a/f1; chmod 600 t/a/f2
find t -type f | sort | wc -l
find t -type d | sort
find t -name 'f1*' | sort | head -n 5
find t -empty | sort
find t -newer t/a/f1 -type f | wc -l
find t -perm 600
find t -type l -printf '%p -> %l\n'
find -L t/d -name f7
find t -size -1k -type f | sort | head -n 3
find t -name 'f2?' -exec cat {} + | sort | head -n 3
find t -name 'f3?' -print0 | sort -z | xargs -0 -n 3 echo | head -n 3
find t -depth -name 'f1??' -delete; ls t/a | wc -l
find t -path '*b/c*' -prune -o -type f -name 'd*' -print
find "$PWD/t/a/b" -printf '%P %y %d\n' | sort
grep -r needle t | sort
grep -ri NEEDLE t | sort
grep -rl 'line 7 ' t
grep -rc 'line 2' t/a | grep -v ':0' | sort | head -n 5
grep -rn --include='f9*' haystack t | sort | tail -n 2
grep -L line -r t | sort
