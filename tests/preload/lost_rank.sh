# A pool of five ranks with two copies of everything, brought up without one of them and again with it:
# what was there is, and programs work as ever.
export DAOS_EMBEDDED_ROOT=$T/system
dmg pool create tank --size 1GiB --nranks 5 > /dev/null
daos container create tank c1 --type POSIX --oclass=RP_2GX --dir-oclass=RP_2G1 > /dev/null
pool=$(echo "$T"/system/pools/*)
work() {
    il bash -ec '
        mkdir "$MNT/$0" && cd "$MNT/$0"
        cp -a /usr/include/linux tree
        git init -q repository && cd repository
        cp -a ../tree/. . && git add . && git -c user.name=a -c user.email=a@b commit -qm all
        git fsck 2> /dev/null
        cd ..
        tar cf all.tar tree
        sqlite3 base "create table t(a, b);
            with recursive c(x) as (select 1 union all select x + 1 from c where x < 2000)
            insert into t select x, hex(randomblob(20)) from c;"
        fallocate -l 3M given
        dd if=all.tar of=given conv=notrunc,fsync bs=64k count=20 status=none
        truncate -s 1M given
        echo more >> given' "$1"
}
right() {
    il bash -ec '
        cd "$MNT/$0"
        diff -r tree /usr/include/linux
        git -C repository fsck 2> /dev/null
        git -C repository status --short
        tar xOf all.tar tree/elf.h | cmp - /usr/include/linux/elf.h
        sqlite3 base "pragma integrity_check; select count(*) from t"
        tail -c 5 given
        head -c 1048576 all.tar | cmp - <(head -c 1048576 given)' "$1"
}
check() { daos container check tank c1 | grep inconsistent; }
for rank in 0 3; do
    echo "rank $rank is there"
    work "before$rank"
    dmg system stop > /dev/null
    mv "$pool/rank0$rank" "$T/away"
    echo "rank $rank is gone"
    right "before$rank"
    work "without$rank"
    right "without$rank"
    check
    dmg system stop > /dev/null
    mv "$T/away" "$pool/rank0$rank"
    echo "rank $rank is back"
    right "before$rank"
    right "without$rank"
    il rm -r "$MNT/before$rank/repository"
    check
done
il rm -r "$MNT/before0" "$MNT/before3" "$MNT/without0" "$MNT/without3"
il ls -A "$MNT"
check
dmg pool destroy tank --recursive > /dev/null
