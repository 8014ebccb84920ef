# rsync: first copy, update, delete, in place, checksums, hard links
set -e
mkdir -p src/d; for i in $(seq 50); do echo "file $i" > src/d/f$i; done; seq 50000 > src/big; ln -s d/f1 src/l; ln src/d/f1 src/h
find src -exec touch -h -d '2020-01-02 03:04:05' {} +
rsync -a src/ dst/ && diff -r --no-dereference src dst && echo copied
rsync -ain src/ dst/
echo changed > src/d/f7; rm src/d/f8; echo new > src/new
rsync -a --delete --itemize-changes src/ dst/ | sort
diff -r --no-dereference src dst && echo updated
sed -i 's/^25000$/changed/' src/big; rsync -a --inplace --no-whole-file src/big dst/big && cmp src/big dst/big && echo inplace
sed -i 's/^100$/changed/' src/big; rsync -a --no-whole-file src/big dst/big && cmp src/big dst/big && echo delta
rsync -aH src/ dst2/ && stat -c %h dst2/h
rsync -ac --stats src/ dst/ | grep -c 'Number of files'
rsync -a --remove-source-files dst2/d/ moved/ && ls moved | wc -l && find dst2/d -type f | wc -l
rsync -a --append src/big dst3 && cmp src/big dst3
rsync -a --backup --suffix=.old src/new dst/ && rsync -aR src/d/f1 rel/ && ls rel/src/d
rsync -a "$PWD/src/" "$PWD/absolute/" && diff -r --no-dereference src absolute && echo absolute
find . -name 'd*' -prune -o -exec touch -h -d '2020-01-02 03:04:05' {} + ; rm -rf moved
