# What commands put, programs see, and the other way round.
mkdir -p tree/sub; seq 1000 > tree/numbers; echo inner > tree/sub/f; chmod 640 tree/sub/f; head -c 3000000 /dev/zero | tr '\0' z > tree/big
D=${W#$MNT}
daos fs put tank c1 tree $D/tree > /dev/null && il find $W/tree -type f | sort | sed "s|$W||"
il sha256sum $W/tree/big $W/tree/numbers | cut -c1-64 | diff - <(sha256sum tree/big tree/numbers | cut -c1-64) && echo same
il sh -c "echo from a program > $W/p"
daos fs cat tank c1 $D/p
daos fs ls tank c1 $D | grep -c -w -e p -e tree
daos fs mkdir tank c1 $D/made && il stat -c %F $W/made
daos fs get tank c1 $D/tree back > /dev/null && diff -r tree back && stat -c %a back/sub/f
daos fs rm tank c1 $D/p && il ls $W
