# DAOS_POOL and DAOS_CONT without D_IL_*: the container appears at /tmp/POOL/CONT.
test -e /tmp/tank/c1 && { echo "/tmp/tank/c1 exists"; exit 1; }
echo text > f
daos fs put tank c1 f /guide-file > /dev/null
LD_PRELOAD=$PRELOAD DAOS_POOL=tank DAOS_CONT=c1 sh -c 'cd /tmp/tank/c1 && cat guide-file && pwd && rm guide-file'
# A non-empty directory of the kernel wins.
