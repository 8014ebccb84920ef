/* O_APPEND: the end is found again at every write, across descriptors and processes. */
#include "check.h"
#include <sys/uio.h>

CASE(resolved_at_each_write) {
    int a = OK(open("f", O_CREAT | O_WRONLY | O_APPEND, 0644));
    int b = OK(open("f", O_WRONLY | O_APPEND));
    EQ(write(a, "a1", 2), 2);
    EQ(write(b, "b1", 2), 2);
    EQ(write(a, "a2", 2), 2);
    holds("f", "a1b1a2");
    EQ(lseek(a, 0, SEEK_CUR), 6);
}

CASE(ignores_offset) {
    put("f", "12345");
    int fd = OK(open("f", O_RDWR | O_APPEND));
    EQ(lseek(fd, 0, SEEK_CUR), 0);
    EQ(lseek(fd, 1, SEEK_SET), 1);
    EQ(write(fd, "67", 2), 2);
    holds("f", "1234567");
    EQ(lseek(fd, 0, SEEK_CUR), 7);
}

CASE(pwrite_appends_too) {
    put("f", "12345");
    int fd = OK(open("f", O_WRONLY | O_APPEND));
    EQ(pwrite(fd, "6", 1, 0), 1);
    holds("f", "123456");
}

CASE(set_by_fcntl) {
    put("f", "abc");
    int fd = OK(open("f", O_RDWR));
    OK(fcntl(fd, F_SETFL, O_APPEND));
    CHECK(fcntl(fd, F_GETFL) & O_APPEND);
    EQ(write(fd, "d", 1), 1);
    holds("f", "abcd");
    OK(fcntl(fd, F_SETFL, 0));
    OK(lseek(fd, 0, SEEK_SET));
    EQ(write(fd, "A", 1), 1);
    holds("f", "Abcd");
}

CASE(atomic_between_processes) {
    enum { PROCESSES = 4, LINES = 500, LEN = 41 };
    OK(close(OK(open("f", O_CREAT | O_WRONLY, 0644))));
    pid_t pids[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        pids[p] = OK(fork());
        if (pids[p] == 0) {
            int fd = OK(open("f", O_WRONLY | O_APPEND));
            char line[LEN + 1];
            for (int i = 0; i < LINES; i++) {
                memset(line, 'a' + p, LEN);
                line[LEN - 1] = '\n';
                EQ(write(fd, line, LEN), LEN);
            }
            _exit(0);
        }
    }
    for (int p = 0; p < PROCESSES; p++) EQ(wait_for(pids[p]), 0);
    EQ(size_of("f"), PROCESSES * LINES * LEN);
    int fd = OK(open("f", O_RDONLY));
    int count[PROCESSES] = {0};
    char line[LEN];
    for (int i = 0; i < PROCESSES * LINES; i++) {
        EQ(read(fd, line, LEN), LEN);
        for (int j = 1; j < LEN - 1; j++) EQ(line[j], line[0]);
        EQ(line[LEN - 1], '\n');
        count[line[0] - 'a']++;
    }
    for (int p = 0; p < PROCESSES; p++) EQ(count[p], LINES);
}

CASE(rwf_append) {
    put("f", "abc");
    int fd = OK(open("f", O_RDWR));
    struct iovec v = {"de", 2};
    ssize_t n = pwritev2(fd, &v, 1, 0, 0x10 /* RWF_APPEND */);
    if (n < 0 && errno == EOPNOTSUPP) SKIP("no RWF_APPEND");
    EQ(n, 2);
    holds("f", "abcde");
}

CASE(truncate_then_append) {
    int fd = OK(open("f", O_CREAT | O_RDWR | O_APPEND, 0644));
    EQ(write(fd, "hello", 5), 5);
    OK(ftruncate(fd, 2));
    EQ(write(fd, "y", 1), 1);
    holds("f", "hey");
}

CASE(stdio_append_mode) {
    put("f", "1\n");
    FILE *a = fopen("f", "a");
    FILE *b = fopen("f", "a");
    CHECK(a && b);
    fprintf(a, "2\n");
    fflush(a);
    fprintf(b, "3\n");
    fflush(b);
    fprintf(a, "4\n");
    EQ(fclose(a), 0);
    EQ(fclose(b), 0);
    holds("f", "1\n2\n3\n4\n");
}
