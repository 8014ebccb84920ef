/* fsync(2), fdatasync(2), syncfs(2), sync(2), sync_file_range(2), O_SYNC, RWF_SYNC, msync(2): what they take and refuse.
 * What they promise is looked at in tests/power. */
#include "check.h"
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#define ALL (SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER)
#define MOST 0x7fffffffffffffffLL

static char data[300000];

static int file_of(const char *name, int flags) {
    int fd = OK(open(name, O_CREAT | O_RDWR | flags, 0644));
    fill(data, sizeof data, 0, 1);
    EQ(pwrite(fd, data, sizeof data, 0), sizeof data);
    return fd;
}

CASE(whole_files) {
    int fd = file_of("f", 0);
    OK(fsync(fd));
    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(syncfs(fd));
    sync();
    EQ(size_of("f"), sizeof data);
    /* Reading is enough (fsync(2)). */
    int other = OK(open("f", O_RDONLY));
    OK(pwrite(fd, "x", 1, 5));
    OK(fsync(other));
    OK(fdatasync(other));
    OK(syncfs(other));
}

CASE(without_a_name) {
    int fd = file_of("f", 0);
    OK(unlink("f"));
    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(sync_file_range(fd, 0, 0, ALL));
    char byte;
    EQ(pread(fd, &byte, 1, 1000), 1);
    EQ(byte, data[1000]);
}

CASE(directories) {
    OK(mkdir("d", 0755));
    int dir = OK(open("d", O_RDONLY | O_DIRECTORY));
    put("d/f", "x");
    OK(fsync(dir));
    OK(fdatasync(dir));
    OK(syncfs(dir));
    OK(rename("d/f", "d/g"));
    OK(fsync(dir));
    OK(unlink("d/g"));
    OK(rmdir("d"));
    OK(fsync(dir));
}

CASE(ranges) {
    int fd = file_of("f", 0);
    int how[] = {0, SYNC_FILE_RANGE_WAIT_BEFORE, SYNC_FILE_RANGE_WRITE, SYNC_FILE_RANGE_WAIT_AFTER, ALL};
    for (unsigned i = 0; i < sizeof how / sizeof *how; i++) {
        OK(sync_file_range(fd, 0, 0, how[i]));
        OK(sync_file_range(fd, 4096, 100, how[i]));
        OK(sync_file_range(fd, 1 << 30, 1 << 30, how[i]));
        OK(sync_file_range(fd, MOST, 0, how[i]));
    }
    /* The position stays. */
    EQ(lseek(fd, 0, SEEK_CUR), 0);
}

CASE(ranges_that_are_none) {
    int fd = file_of("f", 0);
    ERR(sync_file_range(fd, -1, 1, SYNC_FILE_RANGE_WRITE), EINVAL);
    ERR(sync_file_range(fd, 0, -1, SYNC_FILE_RANGE_WRITE), EINVAL);
    ERR(sync_file_range(fd, 10, -5, SYNC_FILE_RANGE_WRITE), EINVAL);
    ERR(sync_file_range(fd, MOST, 1, SYNC_FILE_RANGE_WRITE), EINVAL);
    ERR(sync_file_range(fd, 0, 1, 8), EINVAL);
    ERR(sync_file_range(fd, 0, 1, ALL | 0x100), EINVAL);
    ERR(sync_file_range(-1, 0, 1, SYNC_FILE_RANGE_WRITE), EBADF);
    ERR(sync_file_range(-1, -1, 1, 8), EBADF);
}

CASE(what_cannot_be_synced) {
    int fd = file_of("f", 0);
    OK(close(fd));
    ERR(fsync(fd), EBADF);
    ERR(fdatasync(fd), EBADF);
    ERR(syncfs(fd), EBADF);
    ERR(fsync(-1), EBADF);
    ERR(fdatasync(-1), EBADF);
    ERR(syncfs(-1), EBADF);
    int pipes[2];
    OK(pipe(pipes));
    ERR(fsync(pipes[1]), EINVAL);
    ERR(fdatasync(pipes[1]), EINVAL);
    ERR(sync_file_range(pipes[1], 0, 1, SYNC_FILE_RANGE_WRITE), ESPIPE);
    OK(mkfifo("p", 0644));
    int fifo = OK(open("p", O_RDWR));
    ERR(fsync(fifo), EINVAL);
    ERR(fdatasync(fifo), EINVAL);
    ERR(sync_file_range(fifo, 0, 1, SYNC_FILE_RANGE_WRITE), ESPIPE);
}

CASE(paths_without_access) {
    OK(close(file_of("f", 0)));
    OK(symlink("f", "link"));
    const char *names[] = {"f", ".", "link"};
    for (unsigned i = 0; i < 3; i++) {
        int fd = OK(open(names[i], O_PATH | O_NOFOLLOW));
        ERR(fsync(fd), EBADF);
        ERR(fdatasync(fd), EBADF);
        ERR(syncfs(fd), EBADF);
        ERR(sync_file_range(fd, 0, 1, SYNC_FILE_RANGE_WRITE), EBADF);
    }
}

CASE(written_at_once) {
    int flags[] = {O_SYNC, O_DSYNC, O_SYNC | O_APPEND};
    for (unsigned i = 0; i < 3; i++) {
        int fd = file_of("f", flags[i]);
        EQ(fcntl(fd, F_GETFL) & (O_SYNC | O_DSYNC | O_APPEND), flags[i]);
        EQ(write(fd, "abc", 3), 3);
        struct iovec two[2] = {{"de", 2}, {"f", 1}};
        EQ(writev(fd, two, 2), 3);
        EQ(pwritev(fd, two, 2, 100), 3);
        OK(ftruncate(fd, 10));
        OK(fallocate(fd, 0, 0, 100000));
        EQ(write(fd, "", 0), 0);
        OK(close(fd));
        OK(unlink("f"));
    }
    /* These two cannot be changed later (fcntl(2)). */
    int fd = file_of("g", 0);
    OK(fcntl(fd, F_SETFL, O_SYNC));
    EQ(fcntl(fd, F_GETFL) & O_SYNC, 0);
}

CASE(copied_at_once) {
    int from = file_of("from", 0), to = OK(open("to", O_CREAT | O_RDWR | O_DSYNC, 0644));
    off_t at = 0;
    EQ(sendfile(to, from, &at, 100000), 100000);
    loff_t in = 0, out = 100000;
    EQ(copy_file_range(from, &in, to, &out, 50000, 0), 50000);
    char got[1000];
    EQ(pread(to, got, 1000, 100000), 1000);
    MEM(got, data, 1000);
}

CASE(single_writes_at_once) {
    int fd = file_of("f", 0);
    struct iovec one = {"abcd", 4};
    int flags[] = {RWF_DSYNC, RWF_SYNC, RWF_DSYNC | RWF_SYNC, RWF_SYNC | RWF_HIPRI};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
        EQ(pwritev2(fd, &one, 1, 10 * (i + 1), flags[i]), 4);
        char got[4];
        struct iovec back = {got, 4};
        EQ(preadv2(fd, &back, 1, 10 * (i + 1), flags[i]), 4);
        MEM(got, "abcd", 4);
    }
    /* At the position, and at the end. */
    EQ(lseek(fd, 7, SEEK_SET), 7);
    EQ(pwritev2(fd, &one, 1, -1, RWF_DSYNC), 4);
    EQ(lseek(fd, 0, SEEK_CUR), 11);
    EQ(pwritev2(fd, &one, 1, 0, RWF_APPEND | RWF_SYNC), 4);
    EQ(size_of("f"), sizeof data + 4);
    EQ(pwritev2(fd, &one, 0, 0, RWF_DSYNC), 0);
    ERR(pwritev2(fd, &one, 1, 0, RWF_DSYNC | 0x40000000), EOPNOTSUPP);
    ERR(pwritev2(fd, &one, 1, -2, RWF_DSYNC), EINVAL);
    ERR(pwritev2(-1, &one, 1, 0, RWF_DSYNC), EBADF);
    int rd = OK(open("f", O_RDONLY));
    ERR(pwritev2(rd, &one, 1, 0, RWF_DSYNC), EBADF);
}

CASE(mapped) {
    long page = sysconf(_SC_PAGESIZE);
    int fd = file_of("f", 0);
    char *p = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    p[10] = 'x';
    OK(msync(p, 4 * page, MS_ASYNC));
    p[page] = 'y';
    OK(msync(p + page, page, MS_SYNC));
    OK(msync(p + page, 1, MS_SYNC | MS_INVALIDATE));
    OK(msync(p, 0, MS_SYNC));
    char byte;
    EQ(pread(fd, &byte, 1, 10), 1);
    EQ(byte, 'x');
    EQ(pread(fd, &byte, 1, page), 1);
    EQ(byte, 'y');
    ERR(msync(p, page, MS_SYNC | MS_ASYNC), EINVAL);
    ERR(msync(p, page, 8), EINVAL);
    ERR(msync(p + 1, page, MS_SYNC), EINVAL);
    OK(munmap(p + 2 * page, page));
    ERR(msync(p, 4 * page, MS_SYNC), ENOMEM);
    OK(msync(p, 2 * page, MS_SYNC));
    OK(munmap(p, 2 * page));
    ERR(msync(p, page, MS_SYNC), ENOMEM);
    const char *private = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(private != MAP_FAILED);
    OK(msync((void *)private, page, MS_SYNC));
}
