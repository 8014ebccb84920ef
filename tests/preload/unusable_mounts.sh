# A container that cannot be mounted: the line names the cure.
daos container create tank h1 --type HDF5 > /dev/null
for name in h1 nobody 'two words'; do
    LD_PRELOAD=$PRELOAD D_IL_MOUNT_POINT=$MNT D_IL_POOL=tank D_IL_CONTAINER=$name sh -c 'test -e "$0"' "$MNT/f" 2>&1
    echo "$?"
done
daos container destroy tank h1 > /dev/null
