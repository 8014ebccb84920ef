# Programs that ask about the file system, and one that would like to watch it.
il df --output=target,itotal,pcent $MNT | sed 's/  */ /g; s/[0-9][0-9]* *[0-9]*%$/N P/' | sed "s,$MNT,MNT,"
il df $W > /dev/null && il stat -f -c '%s %l' $W
il sh -c "echo a > $W/log; tail -n 1 -f $W/log > followed &
  for i in \$(seq 100); do grep -q a followed && break; sleep 0.1; done
  for i in 1 2 3; do echo b\$i >> $W/log; sleep 0.1; done
  for i in \$(seq 100); do grep -q b3 followed && break; sleep 0.1; done; kill \$!; cat followed"
il dd if=/dev/zero of=$W/direct bs=1000 count=3 oflag=direct status=none && il stat -c %s $W/direct
il dd if=$W/direct of=copy bs=777 iflag=direct status=none && stat -c %s copy
il mountpoint -q $W; echo $?
