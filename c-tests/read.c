/* read(2), pread(2), write(2), pwrite(2), lseek(2) and their edges. */
#include "check.h"
#include <sys/syscall.h>

CASE(at_and_after_end) {
    put("f", "abc");
    int fd = OK(open("f", O_RDONLY));
    char buf[8];
    memset(buf, '#', 8);
    EQ(read(fd, buf, 8), 3);
    EQ(buf[3], '#');
    EQ(read(fd, buf, 8), 0);
    EQ(lseek(fd, 100, SEEK_SET), 100);
    EQ(read(fd, buf, 8), 0);
    EQ(pread(fd, buf, 8, 2), 1);
    EQ(buf[0], 'c');
    EQ(pread(fd, buf, 8, 3), 0);
    EQ(lseek(fd, 0, SEEK_CUR), 100);
}

CASE(zero_bytes) {
    put("f", "abc");
    int fd = OK(open("f", O_RDWR));
    EQ(read(fd, NULL, 0), 0);
    EQ(write(fd, NULL, 0), 0);
    EQ(pread(fd, NULL, 0, 1), 0);
    EQ(pwrite(fd, NULL, 0, 1), 0);
    EQ(size_of("f"), 3);
}

CASE(negative_offset) {
    put("f", "abc");
    int fd = OK(open("f", O_RDWR));
    char c;
    ERR(pread(fd, &c, 1, -1), EINVAL);
    ERR(pwrite(fd, &c, 1, -1), EINVAL);
    ERR(lseek(fd, -1, SEEK_SET), EINVAL);
    ERR(lseek(fd, -10, SEEK_CUR), EINVAL);
    ERR(lseek(fd, -10, SEEK_END), EINVAL);
    ERR(lseek(fd, 0, 99), EINVAL);
    EQ(lseek(fd, -1, SEEK_END), 2);
}

CASE(hole_reads_zero) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(pwrite(fd, "end", 3, 100000), 3);
    EQ(size_of("f"), 100003);
    char *buf = malloc(100003), *zero = calloc(1, 100000);
    EQ(pread(fd, buf, 100003, 0), 100003);
    MEM(buf, zero, 100000);
    MEM(buf + 100000, "end", 3);
}

CASE(many_sizes) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static unsigned char buf[300000];
    off_t at = 0;
    size_t sizes[] = {1, 2, 511, 512, 4095, 4096, 4097, 8192, 65535, 65537, 131072, 299999};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fill(buf, sizes[i], at, 1);
        EQ(write(fd, buf, sizes[i]), sizes[i]);
        at += sizes[i];
    }
    EQ(size_of("f"), at);
    for (off_t p = 0; p < at; p += 77777) {
        size_t want = at - p < 300000 ? (size_t)(at - p) : 300000;
        EQ(pread(fd, buf, sizeof buf, p), want);
        filled(buf, want, p, 1);
    }
}

CASE(large_file) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    size_t len = 5 << 20;
    unsigned char *buf = malloc(len + 10);
    for (int i = 0; i < 4; i++) {
        fill(buf, len, (off_t)i * (off_t)len, 7);
        EQ(write(fd, buf, len), len);
    }
    EQ(size_of("f"), 4 * len);
    OK(lseek(fd, 3, SEEK_SET));
    for (off_t at = 3; at < (off_t)(4 * len);) {
        ssize_t n = OK(read(fd, buf, len));
        CHECK(n > 0);
        filled(buf, n, at, 7);
        at += n;
    }
}

CASE(overwrite_middle) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static unsigned char buf[20000], got[20000];
    fill(buf, sizeof buf, 0, 3);
    EQ(write(fd, buf, sizeof buf), sizeof buf);
    struct { off_t at; size_t len; } w[] = {{1, 1}, {4000, 200}, {4096, 4096}, {8191, 2}, {19999, 1}, {0, 4096}};
    for (unsigned i = 0; i < sizeof w / sizeof *w; i++) {
        fill(buf + w[i].at, w[i].len, w[i].at, 50 + i);
        EQ(pwrite(fd, buf + w[i].at, w[i].len, w[i].at), w[i].len);
        EQ(pread(fd, got, sizeof got, 0), sizeof got);
        MEM(got, buf, sizeof buf);
    }
}

CASE(pwrite_keeps_offset) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(pwrite(fd, "later", 5, 10), 5);
    EQ(lseek(fd, 0, SEEK_CUR), 0);
    EQ(write(fd, "now", 3), 3);
    EQ(lseek(fd, 0, SEEK_CUR), 3);
    EQ(size_of("f"), 15);
}

CASE(seen_by_other_descriptor) {
    int w = OK(open("f", O_CREAT | O_WRONLY, 0644));
    int r = OK(open("f", O_RDONLY));
    char buf[16];
    EQ(read(r, buf, 16), 0);
    EQ(write(w, "one", 3), 3);
    EQ(read(r, buf, 16), 3);
    EQ(write(w, "two", 3), 3);
    EQ(read(r, buf, 16), 3);
    MEM(buf, "two", 3);
}

CASE(seen_by_other_process) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    IN_CHILD({
        int other = OK(open("f", O_WRONLY));
        EQ(write(other, "child", 5), 5);
    });
    char buf[8] = {0};
    EQ(read(fd, buf, 8), 5);
    STR(buf, "child");
}

CASE(file_size_limit) {
    struct { uint64_t cur, max; } limit = {1000, 1000};
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static char buf[2000];
    signal(SIGXFSZ, SIG_IGN);
    OK(syscall(160, 1 /* RLIMIT_FSIZE */, &limit));
    EQ(write(fd, buf, 2000), 1000);
    ERR(write(fd, buf, 1), EFBIG);
    ERR(ftruncate(fd, 1001), EFBIG);
    OK(ftruncate(fd, 10));
}

CASE(mtime_moves_on_write) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    OK(futimens(fd, old));
    EQ(write(fd, "x", 1), 1);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(st.st_mtim.tv_sec > 1000);
    CHECK(st.st_ctim.tv_sec > 1000);
    EQ(st.st_atim.tv_sec, 1000);
}

CASE(blocks_count) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static char buf[1 << 20];
    memset(buf, 1, sizeof buf);
    EQ(write(fd, buf, sizeof buf), sizeof buf);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(st.st_blocks >= 2048);
    CHECK(st.st_blksize >= 512);
    OK(ftruncate(fd, 0));
    OK(fstat(fd, &st));
    EQ(st.st_blocks, 0);
}

CASE(write_drops_setid) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0777));
    OK(fchmod(fd, 06777));
    if (geteuid() == 0) {
        OK(fchown(fd, 65534, 65534));
        OK(fchmod(fd, 06777));
        become_nobody();
    }
    EQ(write(fd, "x", 1), 1);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_mode & 06000, 0);
}
