/* A million open/close pairs, fifteen thousand files open at once, files open beside a quarter of a million links,
 * closing everything. */
#define CHECK_SECONDS 110
#include "check.h"
#include <sys/resource.h>
#include <time.h>

CASE(million_pairs) {
    put("f", "x");
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < 1000000; i++) {
        int fd = open("f", O_RDONLY);
        if (fd != 3) FAIL("round %d: descriptor %d, errno %s", i, fd, strerrorname_np(errno));
        if (close(fd) != 0) FAIL("close in round %d", i);
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    fprintf(stderr, "open+close: %.0f ns\n", ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / 1e6);
}

enum { MANY = 15000 };

static void raise_limit(void) {
    struct rlimit r;
    OK(getrlimit(RLIMIT_NOFILE, &r));
    if (r.rlim_max < MANY + 100) {
        r.rlim_max = MANY + 1000;
    }
    r.rlim_cur = r.rlim_max > MANY + 1000 ? MANY + 1000 : r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) != 0) SKIP("RLIMIT_NOFILE is too low");
}

CASE(many_open_files) {
    raise_limit();
    static int fds[MANY];
    char name[32];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "f%d", i);
        fds[i] = open(name, O_CREAT | O_RDWR, 0644);
        if (fds[i] < 0) FAIL("file %d: %s", i, strerrorname_np(errno));
        EQ(write(fds[i], &i, sizeof i), sizeof i);
    }
    IN_CHILD({
        for (int i = 0; i < MANY; i += 100) {
            int value;
            EQ(pread(fds[i], &value, sizeof value, 0), sizeof value);
            EQ(value, i);
        }
    });
    for (int i = 0; i < MANY; i++) {
        int value;
        EQ(pread(fds[i], &value, sizeof value, 0), sizeof value);
        EQ(value, i);
    }
    OK(close_range(fds[0], fds[MANY - 1], 0));
    EQ(open("f77", O_RDONLY), fds[0]);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "f%d", i);
        OK(unlink(name));
    }
}

CASE(open_beside_many_links) {
    enum { LINKS = 260000, FILES = 300 };
    char target[900], name[32];
    memset(target, 't', sizeof target - 1);
    target[sizeof target - 1] = 0;
    for (int i = 0; i < LINKS; i++) {
        snprintf(name, sizeof name, "l%d", i);
        if (symlink(target, name) != 0) FAIL("link %d: %s", i, strerrorname_np(errno));
    }
    int fds[FILES];
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%d", i);
        fds[i] = open(name, O_CREAT | O_RDWR, 0644);
        if (fds[i] < 0) FAIL("file %d: %s", i, strerrorname_np(errno));
        EQ(write(fds[i], &i, sizeof i), sizeof i);
    }
    for (int i = 0; i < FILES; i++) {
        int value;
        EQ(pread(fds[i], &value, sizeof value, 0), sizeof value);
        EQ(value, i);
        OK(close(fds[i]));
    }
    for (int i = 0; i < LINKS; i++) {
        snprintf(name, sizeof name, "l%d", i);
        OK(unlink(name));
    }
}

CASE(close_all_again_and_again) {
    put("f", "text\n");
    for (int i = 0; i < 300; i++) {
        for (int j = 0; j < 20; j++) OK(open("f", O_RDONLY));
        OK(close_range(3, ~0U, 0));
        holds("f", "text\n");
    }
    for (int i = 0; i < 100; i++) {
        for (int fd = 3; fd < 300; fd++) close(fd);
        put("g", "more");
    }
    pid_t pid = OK(fork());
    if (pid == 0) {
        closefrom(3);
        holds("f", "text\n");
        execl("/bin/cat", "cat", "f", (char *)NULL);
        _exit(9);
    }
    EQ(wait_for(pid), 0);
}

CASE(leaks_no_space) {
    char block[65536];
    memset(block, 1, sizeof block);
    for (int i = 0; i < 4000; i++) {
        int fd = OK(open("big", O_CREAT | O_TRUNC | O_WRONLY, 0644));
        for (int j = 0; j < 32; j++) EQ(write(fd, block, sizeof block), sizeof block);
        OK(close(fd));
        if (i % 2) OK(unlink("big"));
    }
}
