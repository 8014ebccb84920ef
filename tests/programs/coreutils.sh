# cp -a, mv, rm -r, ls -lR, du, ln, touch, stat, install, truncate, cmp
set -e
mkdir -p src/a/b src/empty
for i in 1 2 3; do seq $((i * 1000)) > src/a/f$i; done
printf 'x' > src/a/b/tiny
head -c 300000 /dev/zero | tr '\0' 'q' > src/big
ln -s a/f1 src/link
ln -s nowhere src/dangling
ln src/a/f1 src/hard
chmod 640 src/a/f2
chmod 4711 src/a/f3
touch -d '2001-02-03 04:05:06.789' src/a/f1 src/a src/a/b src/a/b/tiny src/a/f2 src/a/f3 src/big src/empty
touch -h -d '2001-02-03 04:05:06' src/link src/dangling
touch -d '2001-02-03 04:05:06' src
cp -a src copy
ls -lR --time-style=full-iso copy | sed 's/^total .*//; s/^\(d[^ ]*  *[0-9]*  *[^ ]*  *[^ ]*\)  *[0-9]*/\1 SIZE/'
diff -r --no-dereference src copy && echo same
du -b --apparent-size copy/big copy/a/f1 | cut -f1
cp -r src plain && cmp src/big plain/big && echo cmp ok
mv plain moved
mv moved/a/f1 moved/a/f2
test ! -e plain && ls moved moved/a
cp --sparse=always src/big sparse && cmp src/big sparse
install -m 755 -D src/a/f2 deep/down/here
stat -c '%n %s %a %h %F' deep/down/here src/hard src/link
stat -c '%n %a %h %F' src/empty
truncate -s 5000 sparse && wc -c < sparse
rm -r moved && test ! -e moved && echo removed
rm -rf copy/a
ls copy
realpath src/link
readlink src/link
readlink -f src/link
mkdir -m 700 private && stat -c %a private
rmdir private
basename "$PWD" | wc -w
touch -r src/big ref && stat -c %Y ref
ln -sf a/f2 src/link && cat src/link | wc -l
mkfifo pipe && (echo through > pipe &) && cat < pipe && rm pipe
dircount=$(ls -a src | wc -l); echo $dircount
