/* truncate(2), fallocate(2), SEEK_DATA, SEEK_HOLE, sparse files. */
#include "check.h"
#include <linux/falloc.h>
#include <sys/statvfs.h>

static char zeros[1 << 20];

CASE(truncate_doors) {
    put("f", "0123456789");
    OK(truncate("f", 4));
    holds("f", "0123");
    OK(truncate("f", 6));
    int fd = OK(open("f", O_RDWR));
    char buf[8];
    EQ(read(fd, buf, 8), 6);
    MEM(buf, "0123\0\0", 6);
    OK(ftruncate(fd, 0));
    EQ(size_of("f"), 0);
    EQ(lseek(fd, 0, SEEK_CUR), 6);
    EQ(write(fd, "x", 1), 1);
    EQ(size_of("f"), 7);
}

CASE(truncate_errors) {
    put("f", "x");
    OK(mkdir("d", 0755));
    ERR(truncate("none", 0), ENOENT);
    ERR(truncate("d", 0), EISDIR);
    ERR(truncate("f", -1), EINVAL);
    int dir = OK(open("d", O_RDONLY));
    ERR(ftruncate(dir, 0), EINVAL);
    int fd = OK(open("f", O_RDWR));
    ERR(ftruncate(fd, -1), EINVAL);
    OK(chmod("f", 0444));
    become_nobody();
    ERR(truncate("f", 0), EACCES);
}

CASE(shrunk_bytes_do_not_come_back) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static char buf[100000];
    memset(buf, 'x', sizeof buf);
    EQ(write(fd, buf, sizeof buf), sizeof buf);
    off_t cuts[] = {99999, 70000, 65536, 5000, 4096, 4095, 10, 1, 0};
    for (unsigned i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        OK(ftruncate(fd, cuts[i]));
        OK(ftruncate(fd, 100000));
        EQ(pread(fd, buf, sizeof buf, 0), 100000);
        for (off_t p = 0; p < 100000; p++) EQ(buf[p], p < cuts[i] ? 'x' : 0);
    }
}

CASE(mtime_on_truncate) {
    put("f", "abc");
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    struct stat st;
    OK(utimensat(AT_FDCWD, "f", old, 0));
    OK(truncate("f", 1));
    OK(stat("f", &st));
    CHECK(st.st_mtim.tv_sec > 1000);
    OK(utimensat(AT_FDCWD, "f", old, 0));
    int fd = OK(open("f", O_RDWR));
    OK(ftruncate(fd, 1));
    OK(fstat(fd, &st));
    CHECK(st.st_ctim.tv_sec > 1000);
}

CASE(allocate) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(fallocate(fd, 0, 0, 50000));
    EQ(size_of("f"), 50000);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(st.st_blocks * 512 >= 50000);
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 200000));
    EQ(size_of("f"), 50000);
    EQ(posix_fallocate(fd, 0, 70000), 0);
    EQ(size_of("f"), 70000);
    char c = 'x';
    EQ(pread(fd, &c, 1, 69999), 1);
    EQ(c, 0);
    put("g", "keep");
    fd = OK(open("g", O_RDWR));
    OK(fallocate(fd, 0, 0, 10));
    EQ(size_of("g"), 10);
    EQ(pread(fd, &c, 1, 0), 1);
    EQ(c, 'k');
}

CASE(allocate_errors) {
    put("f", "x");
    int rd = OK(open("f", O_RDONLY)), fd = OK(open("f", O_RDWR));
    ERR(fallocate(rd, 0, 0, 10), EBADF);
    ERR(fallocate(fd, 0, -1, 10), EINVAL);
    ERR(fallocate(fd, 0, 0, 0), EINVAL);
    ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
    ERR(fallocate(fd, 0, LLONG_MAX - 5, 10), EFBIG);
    int pipes[2];
    OK(pipe(pipes));
    ERR(fallocate(pipes[1], 0, 0, 10), ESPIPE);
}

CASE(punch) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static char buf[200000], got[200000];
    memset(buf, 'x', sizeof buf);
    EQ(write(fd, buf, sizeof buf), sizeof buf);
    struct { off_t at, len; } holes[] = {{4096, 4096}, {10000, 1}, {20000, 50000}, {150000, 100000}, {0, 10}};
    for (unsigned i = 0; i < 5; i++) {
        OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, holes[i].at, holes[i].len));
        for (off_t p = holes[i].at; p < holes[i].at + holes[i].len && p < 200000; p++) buf[p] = 0;
        EQ(pread(fd, got, sizeof got, 0), 200000);
        MEM(got, buf, sizeof buf);
    }
    EQ(size_of("f"), 200000);
}

CASE(zero_range) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static char buf[100000], got[100000];
    memset(buf, 'x', sizeof buf);
    EQ(write(fd, buf, sizeof buf), sizeof buf);
    if (fallocate(fd, FALLOC_FL_ZERO_RANGE, 5000, 20000) != 0) {
        EQ(errno, EOPNOTSUPP);
        SKIP("no FALLOC_FL_ZERO_RANGE");
    }
    memset(buf + 5000, 0, 20000);
    EQ(pread(fd, got, sizeof got, 0), 100000);
    MEM(got, buf, sizeof buf);
    OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 90000, 20000));
    EQ(size_of("f"), 110000);
    OK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 100000, 50000));
    EQ(size_of("f"), 110000);
}

CASE(data_and_holes) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static char buf[1 << 16];
    memset(buf, 'x', sizeof buf);
    EQ(pwrite(fd, buf, sizeof buf, 1 << 20), sizeof buf);
    EQ(pwrite(fd, buf, sizeof buf, 3 << 20), sizeof buf);
    OK(ftruncate(fd, 4 << 20));
    off_t data = OK(lseek(fd, 0, SEEK_DATA));
    CHECK(data > 0 && data <= 1 << 20);
    off_t hole = OK(lseek(fd, 1 << 20, SEEK_HOLE));
    CHECK(hole >= (1 << 20) + (1 << 16) && hole < 3 << 20);
    data = OK(lseek(fd, hole, SEEK_DATA));
    CHECK(data > hole && data <= 3 << 20);
    EQ(lseek(fd, 0, SEEK_HOLE), 0);
    hole = OK(lseek(fd, 3 << 20, SEEK_HOLE));
    CHECK(hole < 4 << 20);
    ERR(lseek(fd, hole, SEEK_DATA), ENXIO);
    ERR(lseek(fd, 4 << 20, SEEK_HOLE), ENXIO);
    ERR(lseek(fd, 5 << 20, SEEK_DATA), ENXIO);
}

CASE(hole_of_full_file) {
    put("f", "abc");
    int fd = OK(open("f", O_RDWR));
    EQ(lseek(fd, 0, SEEK_HOLE), 3);
    EQ(lseek(fd, 1, SEEK_DATA), 1);
    OK(ftruncate(fd, 0));
    ERR(lseek(fd, 0, SEEK_DATA), ENXIO);
}

CASE(sparse_to_8_eib) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    off_t last = LLONG_MAX - 1;
    off_t tries[] = {1LL << 32, 1LL << 40, 1LL << 43, 1LL << 50, 1LL << 60, last};
    for (unsigned i = 0; i < sizeof tries / sizeof *tries; i++) {
        ssize_t n = pwrite(fd, "Z", 1, tries[i]);
        if (n < 0 && errno == EFBIG) SKIP("native limit is lower");
        EQ(n, 1);
        EQ(size_of("f"), tries[i] + 1);
        char buf[2] = {0};
        EQ(pread(fd, buf, tries[i] == last ? 1 : 2, tries[i]), 1);
        EQ(buf[0], 'Z');
    }
    OK(ftruncate(fd, 10));
    EQ(pread(fd, zeros, 20, 0), 10);
}

CASE(cut_just_below_8_eib) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    ssize_t n = pwrite(fd, "x", 1, LLONG_MAX - 1);
    if (n < 0 && errno == EFBIG) SKIP("native limit is lower");
    EQ(n, 1);
    OK(ftruncate(fd, LLONG_MAX - 1));
    EQ(size_of("f"), LLONG_MAX - 1);
    OK(ftruncate(fd, LLONG_MAX));
    char c = 'y';
    EQ(pread(fd, &c, 1, LLONG_MAX - 1), 1);
    EQ(c, 0);
}

/* What is not there is refused, and nothing is kept of it. */
CASE(allocate_too_much) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "x", 1), 1);
    struct stat before, after;
    OK(fstat(fd, &before));
    struct statvfs space;
    OK(fstatvfs(fd, &space));
    ERR(fallocate(fd, 0, 0, 2 * (off_t)space.f_blocks * space.f_frsize), ENOSPC);
    OK(fstat(fd, &after));
    EQ(after.st_blocks, before.st_blocks);
    EQ(after.st_size, 1);
    int other = OK(open("g", O_CREAT | O_RDWR, 0644));
    EQ(write(other, zeros, sizeof zeros), sizeof zeros);
}

CASE(past_8_eib) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    ERR(pwrite(fd, "xx", 2, LLONG_MAX), EINVAL);
    OK(ftruncate(fd, LLONG_MAX));
    EQ(size_of("f"), LLONG_MAX);
    char c;
    EQ(pread(fd, &c, 1, LLONG_MAX - 1), 1);
    EQ(c, 0);
}

CASE(collapse_and_insert_say_so) {
    put("f", "abc");
    int fd = OK(open("f", O_RDWR));
    int code = fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096);
    CHECK(code == -1 && (errno == EOPNOTSUPP || errno == EINVAL));
    code = fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096);
    CHECK(code == -1 && (errno == EOPNOTSUPP || errno == EINVAL));
    holds("f", "abc");
}

CASE(sync_calls) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "x", 1), 1);
    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(syncfs(fd));
    OK(sync_file_range(fd, 0, 1, SYNC_FILE_RANGE_WRITE));
    EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
    EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
    OK(readahead(fd, 0, 4096));
    int dir = OK(open(".", O_RDONLY | O_DIRECTORY));
    OK(fsync(dir));
}
