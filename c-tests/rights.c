/* Descriptors in messages (SCM_RIGHTS) whose sender or receiver is not there any more. */
#include "check.h"
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

union control {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static ssize_t send_fd(int s, int fd) {
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    union control control = {0};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(s, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int receive_fd(int s, int flags) {
    char byte;
    struct iovec iov = {&byte, 1};
    union control control = {0};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    EQ(recvmsg(s, &m, flags), 1);
    int fd = -1;
    CHECK(CMSG_FIRSTHDR(&m));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

static void is_locked(const char *path, int yes) {
    int fd = OK(open(path, O_RDONLY));
    if (yes)
        ERR(flock(fd, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    else
        OK(flock(fd, LOCK_EX | LOCK_NB));
    OK(close(fd));
}

static int open_with_lock(const char *path) {
    int fd = OK(open(path, O_CREAT | O_RDWR, 0644));
    OK(flock(fd, LOCK_EX | LOCK_NB));
    return fd;
}

CASE(received_after_its_sender_has_ended) {
    for (int way = 0; way < 3; way++) {
        int s[2], status;
        OK(socketpair(AF_UNIX, way == 0 ? SOCK_DGRAM : SOCK_STREAM, 0, s));
        pid_t pid = OK(fork());
        if (pid == 0) {
            int fd = OK(open("f", O_CREAT | O_EXCL | O_RDWR, 0600));
            OK(unlink("f"));
            EQ(write(fd, "abc", 3), 3);
            OK(send_fd(s[0], fd));
            if (way == 1) OK(close(fd));
            if (way == 2) kill(getpid(), SIGKILL);
            _exit(0);
        }
        OK(waitpid(pid, &status, 0));
        /* Somebody else comes and goes meanwhile. */
        IN_CHILD(OK(close(OK(open("g", O_CREAT | O_RDWR, 0644)))));
        EQ(system("cat g"), 0);
        int fd = receive_fd(s[1], 0);
        char buf[4] = "";
        EQ(write(fd, "d", 1), 1);
        EQ(pread(fd, buf, 4, 0), 4);
        MEM(buf, "abcd", 4);
        OK(close(fd));
        OK(close(s[0]));
        OK(close(s[1]));
    }
}

/* A child locks "f", sends its descriptor from s[0] to s[1] and ends. */
static void lock_and_send(int s[2], int killed) {
    int status;
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    pid_t pid = OK(fork());
    if (pid == 0) {
        OK(send_fd(s[0], open_with_lock("f")));
        if (killed) kill(getpid(), SIGKILL);
        _exit(0);
    }
    OK(waitpid(pid, &status, 0));
    is_locked("f", 1);
}

CASE(never_received) {
    for (int way = 0; way < 3; way++) {
        int s[2];
        lock_and_send(s, way == 2);
        if (way == 1) {
            int fd = receive_fd(s[1], 0);
            is_locked("f", 1);
            OK(close(fd));
        }
        OK(close(s[0]));
        OK(close(s[1]));
        is_locked("f", 0);
    }
}

CASE(never_received_while_others_lock) {
    int other = OK(memfd_create("other", 0));
    pid_t lockers[2];
    for (int i = 0; i < 2; i++) {
        lockers[i] = OK(fork());
        if (lockers[i] == 0) {
            /* Not left behind by a check that fails. */
            OK(prctl(PR_SET_PDEATHSIG, SIGKILL));
            char path[32];
            snprintf(path, sizeof path, "/proc/self/fd/%d", other);
            int fd = OK(open(path, O_RDWR));
            for (;;) flock(fd, flock(fd, LOCK_EX) == 0 ? LOCK_UN : LOCK_EX);
        }
    }
    for (int i = 0; i < 200; i++) {
        int s[2];
        lock_and_send(s, 0);
        OK(close(s[0]));
        OK(close(s[1]));
        is_locked("f", 0);
    }
    for (int i = 0; i < 2; i++) {
        OK(kill(lockers[i], SIGKILL));
        OK(waitpid(lockers[i], NULL, 0));
    }
}

CASE(closed_by_a_sender_that_goes_on) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    int fd = open_with_lock("f"), again = OK(dup(fd));
    OK(send_fd(s[0], fd));
    OK(send_fd(s[0], again));
    OK(close(fd));
    OK(close(again));
    is_locked("f", 1);
    fd = receive_fd(s[1], 0);
    OK(close(fd));
    is_locked("f", 1);
    OK(close(s[0]));
    is_locked("f", 1);
    OK(close(s[1]));
    is_locked("f", 0);
}

CASE(not_sent) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    OK(close(s[1]));
    int fd = open_with_lock("f");
    ERR(send_fd(s[0], fd), EPIPE);
    struct mmsghdr none = {0};
    ERR(sendmmsg(-1, &none, 1, 0), EBADF);
    is_locked("f", 1);
    OK(close(fd));
    is_locked("f", 0);
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    fd = open_with_lock("f");
    int sent = 0;
    while (send_fd(s[0], fd) == 1) sent++;
    EQ(errno, EAGAIN);
    OK(close(fd));
    for (; sent > 0; sent--) {
        is_locked("f", 1);
        OK(close(receive_fd(s[1], 0)));
    }
    is_locked("f", 0);
}

CASE(peeked_at) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    int fd = open_with_lock("f");
    EQ(write(fd, "abc", 3), 3);
    OK(send_fd(s[0], fd));
    OK(close(fd));
    for (int i = 0; i < 3; i++) {
        fd = receive_fd(s[1], MSG_PEEK);
        OK(lseek(fd, 0, SEEK_END));
        OK(close(fd));
    }
    is_locked("f", 1);
    fd = receive_fd(s[1], 0);
    char buf[4] = "";
    EQ(pread(fd, buf, 4, 0), 3);
    STR(buf, "abc");
    OK(close(fd));
    is_locked("f", 0);
}

CASE(received_by_its_sender) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    int fd = open_with_lock("f");
    OK(send_fd(s[0], fd));
    int same = receive_fd(s[1], 0);
    OK(close(fd));
    is_locked("f", 1);
    EQ(write(same, "x", 1), 1);
    OK(close(same));
    is_locked("f", 0);
}

CASE(passed_on) {
    int s[2], t[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, t));
    IN_CHILD(OK(send_fd(s[0], open_with_lock("f"))));
    IN_CHILD({
        int fd = receive_fd(s[1], 0);
        EQ(write(fd, "abc", 3), 3);
        OK(send_fd(t[0], fd));
    });
    is_locked("f", 1);
    int fd = receive_fd(t[1], 0);
    EQ(lseek(fd, 0, SEEK_CUR), 3);
    is_locked("f", 1);
    OK(close(fd));
    is_locked("f", 0);
}

CASE(writer_in_a_message_keeps_a_program_from_running) {
    put("p", "#!/bin/true\n");
    OK(chmod("p", 0755));
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    IN_CHILD(OK(send_fd(s[0], OK(open("p", O_WRONLY)))));
    for (int i = 0; i < 2; i++) {
        pid_t pid = OK(fork());
        if (pid == 0) {
            execl("./p", "p", (char *)NULL);
            _exit(errno);
        }
        EQ(wait_for(pid), i == 0 ? ETXTBSY : 0);
        close(s[0]);
        close(s[1]);
    }
}
