/* readv(2), writev(2), preadv(2), pwritev(2), preadv2(2). */
#include "check.h"
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

CASE(gather_and_scatter) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    struct iovec w[4] = {{"one", 3}, {"", 0}, {"two", 3}, {"three", 5}};
    EQ(writev(fd, w, 4), 11);
    EQ(lseek(fd, 0, SEEK_CUR), 11);
    OK(lseek(fd, 0, SEEK_SET));
    char a[4] = {0}, b[20] = {0};
    struct iovec r[3] = {{a, 3}, {NULL, 0}, {b, 20}};
    EQ(readv(fd, r, 3), 11);
    STR(a, "one");
    STR(b, "twothree");
}

CASE(positional) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    struct iovec w[2] = {{"ab", 2}, {"cd", 2}};
    EQ(pwritev(fd, w, 2, 10), 4);
    EQ(lseek(fd, 0, SEEK_CUR), 0);
    char a[3] = {0}, b[3] = {0};
    struct iovec r[2] = {{a, 2}, {b, 2}};
    EQ(preadv(fd, r, 2, 10), 4);
    STR(a, "ab");
    STR(b, "cd");
    EQ(preadv2(fd, r, 2, 12, 0), 2);
    STR(a, "cd");
    EQ(pwritev2(fd, w, 2, -1, 0), 4);
    EQ(lseek(fd, 0, SEEK_CUR), 4);
    ERR(preadv(fd, r, 2, -2), EINVAL);
}

CASE(limits) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static struct iovec many[1025];
    for (int i = 0; i < 1025; i++) many[i] = (struct iovec){"x", 1};
    EQ(writev(fd, many, 1024), 1024);
    EQ(size_of("f"), 1024);
    ERR(writev(fd, many, 1025), EINVAL);
    ERR(syscall(SYS_writev, fd, many, -1L), EINVAL);
    EQ(writev(fd, many, 0), 0);
    struct iovec bad[2] = {{"x", 1}, {"y", SIZE_MAX}};
    ERR(writev(fd, bad, 2), EINVAL);
}

CASE(short_read_at_end) {
    put("f", "abcde");
    int fd = OK(open("f", O_RDONLY));
    char a[3] = "##", b[8] = "#######";
    struct iovec r[2] = {{a, 2}, {b, 8}};
    EQ(readv(fd, r, 2), 5);
    EQ(b[2], 'e');
    EQ(b[3], '#');
    EQ(readv(fd, r, 2), 0);
}

CASE(large) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    enum { N = 64, LEN = 40000 };
    unsigned char *buf = malloc(N * LEN);
    fill(buf, N * LEN, 0, 5);
    struct iovec v[N];
    for (int i = 0; i < N; i++) v[i] = (struct iovec){buf + i * LEN, LEN};
    EQ(writev(fd, v, N), N * LEN);
    memset(buf, 0, N * LEN);
    EQ(preadv(fd, v, N, 0), N * LEN);
    filled(buf, N * LEN, 0, 5);
}

CASE(append) {
    put("f", "start");
    int fd = OK(open("f", O_WRONLY | O_APPEND));
    struct iovec w[2] = {{"-a", 2}, {"-b", 2}};
    EQ(writev(fd, w, 2), 4);
    holds("f", "start-a-b");
}

/* With offset -1 the file offset ends behind what was written, wherever others have appended since. */
CASE(append_at_the_file_offset) {
    put("f", "start");
    int fd = OK(open("f", O_RDWR));
    char mine[8] = "mine", got[8] = "";
    struct iovec w = {mine, 4}, none = {mine, 0};
    ssize_t n = pwritev2(fd, &w, 1, -1, RWF_APPEND);
    if (n < 0 && errno == EOPNOTSUPP) SKIP("no RWF_APPEND");
    EQ(n, 4);
    EQ(lseek(fd, 0, SEEK_CUR), 9);
    OK(lseek(fd, 2, SEEK_SET));
    EQ(pwritev2(fd, &none, 1, -1, RWF_APPEND), 0);
    EQ(lseek(fd, 0, SEEK_CUR), 2);
    pid_t pid = OK(fork());
    if (pid == 0) {
        /* Not left behind by a check that fails. */
        OK(prctl(PR_SET_PDEATHSIG, SIGKILL));
        int other = OK(open("f", O_WRONLY | O_APPEND));
        for (;;) EQ(write(other, "-", 1), 1);
    }
    for (int i = 0; i < 20000; i++) {
        EQ(pwritev2(fd, &w, 1, -1, RWF_APPEND), 4);
        EQ(pread(fd, got, 4, OK(lseek(fd, 0, SEEK_CUR)) - 4), 4);
        MEM(got, mine, 4);
    }
    OK(kill(pid, SIGKILL));
    OK(waitpid(pid, NULL, 0));
}

CASE(no_append_where_told) {
    put("f", "start");
    int fd = OK(open("f", O_RDWR | O_APPEND));
    struct iovec w = {"ab", 2};
    ssize_t n = pwritev2(fd, &w, 1, 1, 0x20 /* RWF_NOAPPEND */);
    if (n < 0 && errno == EOPNOTSUPP) {
        holds("f", "start");
        SKIP("no RWF_NOAPPEND");
    }
    EQ(n, 2);
    holds("f", "sabrt");
    OK(lseek(fd, 3, SEEK_SET));
    EQ(pwritev2(fd, &w, 1, -1, 0x20), 2);
    EQ(lseek(fd, 0, SEEK_CUR), 5);
    holds("f", "sabab");
    ERR(pwritev2(fd, &w, 1, 0, 0x20 | RWF_APPEND), EINVAL);
    holds("f", "sabab");
}
