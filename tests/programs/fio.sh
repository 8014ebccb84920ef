# fio: requests of the kernel's asynchronous interface, read back and verified, alone and by two processes
for engine in libaio psync; do
  fio --name=$engine --ioengine=$engine --rw=randrw --bs=4k --iodepth=16 --iodepth_batch=4 --size=8m --fsync=50 \
    --verify=crc32c --verify_state_save=0 --numjobs=2 --output=out && echo $engine verified
done
fio --name=queue --ioengine=libaio --rw=write --bs=64k --iodepth=8 --size=4m --userspace_reap=1 --output=out && echo queue
stat -c '%n %s' libaio.0.0 libaio.1.0 psync.0.0 queue.0.0
rm -f out ./*.0
