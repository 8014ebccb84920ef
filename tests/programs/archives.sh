# tar (plain, gzip, xz), gzip, zip, cpio-like copies
set -e
mkdir -p src/d/e; for i in 1 2 3 4 5; do seq $((i * 700)) > src/d/f$i; done
ln -s d/f1 src/l; ln src/d/f2 src/d/e/hard; chmod 750 src/d; : > src/empty; mkfifo src/fifo
truncate -s 1M src/sparse; printf end | dd of=src/sparse bs=1 seek=900000 conv=notrunc status=none
find src -exec touch -h -d '2020-01-02 03:04:05' {} +
T="--sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=gnu"
tar $T -cf a.tar src && sha256sum a.tar
tar $T -czf a.tgz src && tar -tzf a.tgz | wc -l
tar $T -cJf a.txz src && tar -tJf a.txz | sort | head -n 3
tar $T -cSf sparse.tar src/sparse && test "$(stat -c %s sparse.tar)" -lt 100000 && echo sparse
mkdir x y z; tar -C x -xf a.tar; tar -C y -xzf a.tgz; tar -C z -xpJf a.txz
diff -r --no-dereference x/src/d y/src/d && diff -r --no-dereference y/src/d z/src/d && echo equal
stat -c '%a %h %s' x/src/d x/src/d/e/hard x/src/sparse | sed '1s/ .*//'
readlink x/src/l; test -p x/src/fifo && echo fifo
tar -rf a.tar -C / etc/hostname; tar -tf a.tar | tail -n 1
tar $T -uf a.tar src; tar --delete -f a.tar etc/hostname; tar -tf a.tar | wc -l
tar -df y.none src 2>/dev/null || echo no archive
tar -df a.tar && echo no differences
tar -cf - src/d | (cd z && tar -xf -) && echo piped
cp a.tar g; gzip -n g; gunzip -c g.gz | cmp - a.tar && gzip -t g.gz && echo gzip
gunzip g.gz && cmp g a.tar
xz -k g && xz -dc g.xz | cmp - g && rm g.xz
(cd src && zip -qrX ../b.zip d) && unzip -q b.zip -d unz && diff -r src/d unz/d && echo zip
rm -f b.zip a.tgz a.txz
