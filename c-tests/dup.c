/* dup(2), dup2(2), dup3(2), F_DUPFD, close_range(2), FD_CLOEXEC: shared offsets and descriptor numbers. */
#include "check.h"
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

CASE(shares_offset_and_flags) {
    put("f", "abcdef");
    int a = OK(open("f", O_RDWR));
    int b = OK(dup(a));
    char c;
    EQ(read(a, &c, 1), 1);
    EQ(read(b, &c, 1), 1);
    EQ(c, 'b');
    EQ(lseek(b, 5, SEEK_SET), 5);
    EQ(read(a, &c, 1), 1);
    EQ(c, 'f');
    OK(fcntl(a, F_SETFL, O_APPEND));
    CHECK(fcntl(b, F_GETFL) & O_APPEND);
    OK(close(a));
    EQ(write(b, "g", 1), 1);
    holds("f", "abcdefg");
}

CASE(forgets_notifications_that_were_not_asked_for) {
    int dir = OK(open(".", O_RDONLY)), file = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(fcntl(dir, F_NOTIFY, 0));
    OK(fcntl(dir, F_NOTIFY, DN_MULTISHOT));
    OK(fcntl(file, F_NOTIFY, DN_MULTISHOT));
    ERR(fcntl(1 << 20, F_NOTIFY, DN_MULTISHOT), EBADF);
}

CASE(dup2_replaces) {
    put("f", "file");
    put("g", "other");
    int f = OK(open("f", O_RDONLY)), g = OK(open("g", O_RDONLY));
    EQ(dup2(f, g), g);
    char buf[8] = {0};
    EQ(read(g, buf, 8), 4);
    STR(buf, "file");
    EQ(dup2(f, f), f);
    ERR(dup2(-1, f), EBADF);
    ERR(dup2(f, 1 << 30), EBADF);
    ERR(dup3(f, f, 0), EINVAL);
    EQ(dup2(f, 200), 200);
    EQ(lseek(200, 0, SEEK_CUR), 4);
}

CASE(over_standard_descriptors) {
    int keep = OK(dup(1));
    int fd = OK(open("out", O_CREAT | O_WRONLY, 0644));
    EQ(dup2(fd, 1), 1);
    printf("printed\n");
    fflush(stdout);
    EQ(write(1, "raw\n", 4), 4);
    EQ(dup2(keep, 1), 1);
    holds("out", "printed\nraw\n");
}

CASE(foreign_over_ours_and_back) {
    put("f", "x");
    int fd = OK(open("f", O_RDONLY));
    int null = OK(open("/dev/null", O_RDWR));
    EQ(dup2(null, fd), fd);
    EQ(write(fd, "gone", 4), 4);
    holds("f", "x");
    int again = OK(open("f", O_RDONLY));
    EQ(dup2(again, null), null);
    char c;
    EQ(read(null, &c, 1), 1);
}

CASE(cloexec_flag) {
    put("f", "x");
    int a = OK(open("f", O_RDONLY | O_CLOEXEC));
    EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
    int b = OK(dup(a));
    EQ(fcntl(b, F_GETFD), 0);
    int c = OK(fcntl(a, F_DUPFD_CLOEXEC, 100));
    CHECK(c >= 100);
    EQ(fcntl(c, F_GETFD), FD_CLOEXEC);
    int d = OK(fcntl(a, F_DUPFD, 150));
    CHECK(d >= 150);
    EQ(fcntl(d, F_GETFD), 0);
    OK(fcntl(d, F_SETFD, FD_CLOEXEC));
    EQ(fcntl(d, F_GETFD), FD_CLOEXEC);
    int e = OK(dup3(a, 180, O_CLOEXEC));
    EQ(fcntl(e, F_GETFD), FD_CLOEXEC);
    ERR(fcntl(a, F_DUPFD, 1 << 30), EINVAL);
}

CASE(close_range_call) {
    put("f", "x");
    int first = OK(open("f", O_RDONLY));
    int fds[10];
    for (int i = 0; i < 10; i++) fds[i] = OK(open("f", O_RDONLY));
    OK(close_range(fds[2], fds[5], 0));
    for (int i = 0; i < 10; i++) {
        int open_now = fcntl(fds[i], F_GETFD) >= 0;
        EQ(open_now, i < 2 || i > 5);
    }
    OK(close_range(fds[6], ~0U, CLOSE_RANGE_CLOEXEC));
    EQ(fcntl(fds[7], F_GETFD), FD_CLOEXEC);
    OK(close_range(first, ~0U, 0));
    ERR(fcntl(fds[0], F_GETFD), EBADF);
    EQ(open("f", O_RDONLY), first);
    holds("f", "x");
    ERR(close_range(5, 4, 0), EINVAL);
}

CASE(close_everything_and_go_on) {
    put("f", "x");
    for (int fd = 3; fd < 1024; fd++) close(fd);
    holds("f", "x");
    closefrom(3);
    holds("f", "x");
    put("g", "y");
    holds("g", "y");
}

CASE(descriptor_limit) {
    put("f", "x");
    struct rlimit r;
    OK(getrlimit(RLIMIT_NOFILE, &r));
    r.rlim_cur = 64;
    OK(setrlimit(RLIMIT_NOFILE, &r));
    int n = 0, last = -1;
    while ((last = open("f", O_RDONLY)) >= 0) n++;
    EQ(errno, EMFILE);
    CHECK(n >= 40);
    OK(close(10));
    EQ(open("f", O_RDONLY), 10);
}

CASE(passed_over_a_socket) {
    put("f", "0123456789");
    int pair[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    int fd = OK(open("f", O_RDWR));
    pid_t pid = OK(fork());
    if (pid == 0) {
        OK(close(fd));
        char c, control[64];
        struct iovec v = {&c, 1};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        EQ(recvmsg(pair[1], &m, 0), 1);
        int got;
        memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof got);
        char buf[8] = {0};
        EQ(read(got, buf, 3), 3);
        STR(buf, "234");
        EQ(pwrite(got, "X", 1, 0), 1);
        _exit(0);
    }
    EQ(lseek(fd, 2, SEEK_SET), 2);
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec v = {"x", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    EQ(sendmsg(pair[0], &m, 0), 1);
    EQ(wait_for(pid), 0);
    EQ(lseek(fd, 0, SEEK_CUR), 5);
    holds("f", "X123456789");
}

CASE(internal_descriptors_stay_hidden) {
    DIR *d = opendir("/proc/self/fd");
    CHECK(d);
    struct dirent *e;
    put("f", "x");
    int fd = OK(open("f", O_RDONLY)), seen = 0;
    while ((e = readdir(d))) seen |= atoi(e->d_name) == fd && e->d_name[0] != '.';
    CHECK(seen);
}
