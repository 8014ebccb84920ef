/* fcntl(2) record locks, open file description locks, flock(2), lockf(3): conflicts, ranges, release at death. */
#include "check.h"
#include <pthread.h>
#include <time.h>
#include <sys/file.h>

static struct flock range(short type, off_t start, off_t len) {
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}

static int lock(int fd, int cmd, short type, off_t start, off_t len) {
    struct flock l = range(type, start, len);
    return fcntl(fd, cmd, &l);
}

static int file(void) { return OK(open("f", O_CREAT | O_RDWR, 0644)); }

CASE(records_conflict_between_processes) {
    int fd = file();
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
    IN_CHILD({
        int other = file();
        ERR(lock(other, F_SETLK, F_WRLCK, 5, 1), EAGAIN);
        ERR(lock(other, F_SETLK, F_RDLCK, 9, 5), EAGAIN);
        OK(lock(other, F_SETLK, F_WRLCK, 10, 5));
        struct flock l = range(F_RDLCK, 0, 0);
        OK(fcntl(other, F_GETLK, &l));
        EQ(l.l_type, F_WRLCK);
        EQ(l.l_pid, getppid());
        EQ(l.l_start, 0);
        EQ(l.l_len, 10);
    });
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 10));
    IN_CHILD(OK(lock(file(), F_SETLK, F_WRLCK, 0, 0)));
}

CASE(records_are_not_inherited) {
    int fd = file();
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
    IN_CHILD(ERR(lock(fd, F_SETLK, F_WRLCK, 0, 0), EAGAIN));
}

CASE(shared_records) {
    int fd = file();
    OK(lock(fd, F_SETLK, F_RDLCK, 0, 100));
    IN_CHILD({
        OK(lock(file(), F_SETLK, F_RDLCK, 0, 100));
        ERR(lock(file(), F_SETLK, F_WRLCK, 0, 1), EAGAIN);
    });
}

CASE(split_and_merge) {
    int fd = file();
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 100));
    OK(lock(fd, F_SETLK, F_UNLCK, 40, 20));
    IN_CHILD({
        int other = file();
        OK(lock(other, F_SETLK, F_WRLCK, 40, 20));
        ERR(lock(other, F_SETLK, F_WRLCK, 39, 1), EAGAIN);
        ERR(lock(other, F_SETLK, F_WRLCK, 60, 1), EAGAIN);
        struct flock l = range(F_WRLCK, 50, 100);
        OK(fcntl(other, F_GETLK, &l));
        EQ(l.l_start, 60);
        EQ(l.l_len, 40);
    });
}

CASE(close_of_any_descriptor_releases_records) {
    int a = file(), b = file();
    OK(lock(a, F_SETLK, F_WRLCK, 0, 0));
    OK(close(b));
    IN_CHILD(OK(lock(file(), F_SETLK, F_WRLCK, 0, 0)));
    OK(close(a));
}

CASE(records_of_one_process_never_conflict) {
    int a = file(), b = file();
    OK(lock(a, F_SETLK, F_WRLCK, 0, 0));
    OK(lock(b, F_SETLK, F_WRLCK, 0, 0));
}

CASE(record_needs_mode) {
    put("f", "");
    int rd = OK(open("f", O_RDONLY));
    ERR(lock(rd, F_SETLK, F_WRLCK, 0, 0), EBADF);
    OK(lock(rd, F_SETLK, F_RDLCK, 0, 0));
    int wr = OK(open("f", O_WRONLY));
    ERR(lock(wr, F_SETLK, F_RDLCK, 0, 0), EBADF);
    ERR(lock(wr, F_SETLK, 99, 0, 0), EINVAL);
    ERR(lock(wr, F_SETLK, F_WRLCK, -5, 1), EINVAL);
}

CASE(whence_and_negative_length) {
    int fd = file();
    OK(ftruncate(fd, 100));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -10, .l_len = 5};
    OK(fcntl(fd, F_SETLK, &l));
    OK(lseek(fd, 50, SEEK_SET));
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = 0, .l_len = -10};
    OK(fcntl(fd, F_SETLK, &l));
    IN_CHILD({
        int other = file();
        ERR(lock(other, F_SETLK, F_WRLCK, 92, 1), EAGAIN);
        ERR(lock(other, F_SETLK, F_WRLCK, 40, 1), EAGAIN);
        OK(lock(other, F_SETLK, F_WRLCK, 50, 10));
        OK(lock(other, F_SETLK, F_WRLCK, 95, 10));
    });
}

CASE(blocking_record_waits) {
    int fd = file();
    int pipes[2];
    OK(pipe(pipes));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int other = file();
        EQ(write(pipes[1], "r", 1), 1);
        OK(lock(other, F_SETLKW, F_WRLCK, 0, 0));
        EQ(write(other, "child", 5), 5);
        _exit(0);
    }
    char c;
    EQ(read(pipes[0], &c, 1), 1);
    usleep(50000);
    EQ(size_of("f"), 0);
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    EQ(wait_for(pid), 0);
    holds("f", "child");
}

static void nothing(int sig) { (void)sig; }

CASE(blocking_record_is_interrupted) {
    int fd = file();
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
    IN_CHILD({
        struct sigaction sa = {.sa_handler = nothing};
        OK(sigaction(SIGALRM, &sa, NULL));
        int other = file();
        ualarm(100000, 0);
        ERR(lock(other, F_SETLKW, F_WRLCK, 0, 0), EINTR);
    });
}

CASE(deadlock_is_refused) {
    int fd = file();
    int up[2], down[2];
    OK(pipe(up));
    OK(pipe(down));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int other = file();
        OK(lock(other, F_SETLK, F_WRLCK, 1, 1));
        EQ(write(up[1], "x", 1), 1);
        OK(lock(other, F_SETLKW, F_WRLCK, 0, 1));
        _exit(0);
    }
    char c;
    EQ(read(up[0], &c, 1), 1);
    usleep(100000);
    ERR(lock(fd, F_SETLKW, F_WRLCK, 1, 1), EDEADLK);
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 1));
    EQ(wait_for(pid), 0);
}

/* Whoever closes the circle is refused, at whatever moment he asks; who waited before goes on waiting. */
CASE(deadlock_is_always_seen) {
    int fd = file(), pipes[2];
    OK(pipe(pipes));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int other = file();
        OK(lock(other, F_SETLK, F_WRLCK, 1, 1));
        EQ(write(pipes[1], "x", 1), 1);
        OK(lock(other, F_SETLKW, F_WRLCK, 0, 1));
        _exit(0);
    }
    char c;
    EQ(read(pipes[0], &c, 1), 1);
    usleep(100000);
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    do {
        ERR(lock(fd, F_SETLKW, F_WRLCK, 1, 1), EDEADLK);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - from.tv_sec) * 1000 + (now.tv_nsec - from.tv_nsec) / 1000000 < 500);
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 1));
    EQ(wait_for(pid), 0);
}

/* Who has just released a lock may wait for another of those who waited for it: they are about to wake up. */
CASE(a_release_is_no_deadlock) {
    int fd = file(), pipes[2];
    OK(pipe(pipes));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int other = file();
        for (int i = 0; i < 200; i++) {
            OK(lock(other, F_SETLKW, F_WRLCK, 1, 1));
            EQ(write(pipes[1], "x", 1), 1);
            OK(lock(other, F_SETLKW, F_WRLCK, 0, 1));
            OK(lock(other, F_SETLK, F_UNLCK, 0, 2));
        }
        _exit(0);
    }
    for (int i = 0; i < 200; i++) {
        char c;
        EQ(read(pipes[0], &c, 1), 1);
        if (i % 10 == 0) usleep(2000);
        OK(lock(fd, F_SETLK, F_UNLCK, 0, 1));
        OK(lock(fd, F_SETLKW, F_WRLCK, 1, 1));
        OK(lock(fd, F_SETLKW, F_WRLCK, 0, 1));
        OK(lock(fd, F_SETLK, F_UNLCK, 1, 1));
    }
    EQ(wait_for(pid), 0);
}

CASE(death_releases_everything) {
    int fd = file(), pipes[2];
    OK(pipe(pipes));
    for (int kind = 0; kind < 3; kind++) {
        pid_t pid = OK(fork());
        if (pid == 0) {
            int other = file();
            if (kind == 0) OK(lock(other, F_SETLK, F_WRLCK, 0, 0));
            if (kind == 1) OK(lock(other, F_OFD_SETLK, F_WRLCK, 0, 0));
            if (kind == 2) OK(flock(other, LOCK_EX));
            EQ(write(pipes[1], "x", 1), 1);
            pause();
        }
        char c;
        EQ(read(pipes[0], &c, 1), 1);
        if (kind < 2) ERR(lock(fd, F_SETLK, F_WRLCK, 0, 0), EAGAIN);
        if (kind == 2) ERR(flock(fd, LOCK_EX | LOCK_NB), EWOULDBLOCK);
        OK(kill(pid, SIGKILL));
        int status;
        EQ(waitpid(pid, &status, 0), pid);
        if (kind < 2) OK(lock(fd, F_SETLKW, F_WRLCK, 0, 0));
        if (kind == 2) OK(flock(fd, LOCK_EX));
        if (kind < 2) OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
        if (kind == 2) OK(flock(fd, LOCK_UN));
    }
}

CASE(description_locks) {
    int a = file(), b = file();
    OK(lock(a, F_OFD_SETLK, F_WRLCK, 0, 10));
    ERR(lock(b, F_OFD_SETLK, F_WRLCK, 0, 10), EAGAIN);
    OK(lock(b, F_OFD_SETLK, F_WRLCK, 10, 10));
    int c = OK(dup(a));
    OK(lock(c, F_OFD_SETLK, F_RDLCK, 0, 10));
    OK(lock(b, F_OFD_SETLK, F_RDLCK, 0, 10));
    struct flock l = range(F_WRLCK, 0, 5);
    int d = file();
    OK(fcntl(d, F_OFD_GETLK, &l));
    EQ(l.l_type, F_RDLCK);
    EQ(l.l_pid, -1);
    OK(close(a));
    OK(close(b));
    ERR(lock(d, F_OFD_SETLK, F_WRLCK, 0, 1), EAGAIN);
    OK(close(c));
    OK(lock(d, F_OFD_SETLK, F_WRLCK, 0, 1));
    l = range(F_WRLCK, 0, 1);
    l.l_pid = 7;
    ERR(fcntl(d, F_OFD_SETLK, &l), EINVAL);
}

CASE(description_locks_are_inherited) {
    int fd = file();
    OK(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
    IN_CHILD({
        OK(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
        ERR(lock(file(), F_OFD_SETLK, F_WRLCK, 0, 0), EAGAIN);
        ERR(lock(file(), F_SETLK, F_WRLCK, 0, 0), EAGAIN);
    });
}

CASE(flock_modes) {
    int a = file(), b = file();
    OK(flock(a, LOCK_SH));
    OK(flock(b, LOCK_SH | LOCK_NB));
    ERR(flock(a, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    OK(flock(b, LOCK_UN));
    OK(flock(a, LOCK_EX | LOCK_NB));
    ERR(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    ERR(flock(a, 77), EINVAL);
    ERR(flock(-1, LOCK_SH), EBADF);
    OK(lock(b, F_SETLK, F_WRLCK, 0, 0));
}

CASE(flock_is_per_description) {
    int a = file();
    OK(flock(a, LOCK_EX));
    int b = OK(dup(a));
    OK(close(a));
    IN_CHILD(ERR(flock(file(), LOCK_EX | LOCK_NB), EWOULDBLOCK));
    OK(close(b));
    IN_CHILD(OK(flock(file(), LOCK_EX | LOCK_NB)));
}

CASE(flock_survives_in_child) {
    int a = file();
    OK(flock(a, LOCK_EX));
    int pipes[2];
    OK(pipe(pipes));
    pid_t pid = OK(fork());
    if (pid == 0) {
        char c;
        OK(close(pipes[1]));
        EQ(read(pipes[0], &c, 1), 0);
        _exit(0);
    }
    OK(close(a));
    int b = file();
    ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    OK(close(pipes[1]));
    EQ(wait_for(pid), 0);
    OK(flock(b, LOCK_EX | LOCK_NB));
}

CASE(blocking_flock_waits) {
    int fd = file(), pipes[2];
    OK(pipe(pipes));
    OK(flock(fd, LOCK_EX));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int other = file();
        EQ(write(pipes[1], "x", 1), 1);
        OK(flock(other, LOCK_EX));
        EQ(write(other, "x", 1), 1);
        _exit(0);
    }
    char c;
    EQ(read(pipes[0], &c, 1), 1);
    usleep(50000);
    EQ(size_of("f"), 0);
    OK(flock(fd, LOCK_UN));
    EQ(wait_for(pid), 0);
    EQ(size_of("f"), 1);
}

CASE(lockf_calls) {
    int fd = file();
    OK(lockf(fd, F_TLOCK, 10));
    IN_CHILD({
        int other = file();
        errno = 0;
        EQ(lockf(other, F_TEST, 10), -1);
        CHECK(lockf(other, F_TLOCK, 10) == -1);
    });
    OK(lockf(fd, F_ULOCK, 10));
    IN_CHILD(OK(lockf(file(), F_TLOCK, 10)));
}

CASE(exec_keeps_locks) {
    int fd = file();
    OK(flock(fd, LOCK_EX));
    char script[200];
    snprintf(script, sizeof script, "test -e /proc/self/fd/%d", fd);
    pid_t pid = OK(fork());
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(9);
    }
    EQ(wait_for(pid), 0);
    ERR(flock(file(), LOCK_EX | LOCK_NB), EWOULDBLOCK);
}

/* What an exec closes keeps nothing, whatever the program it leads to does. */
CASE(exec_lets_go_of_what_it_closes) {
    put("f", "x");
    int fd = OK(open("f", O_RDWR | O_CLOEXEC)), ends[2];
    OK(flock(fd, LOCK_EX));
    OK(pipe2(ends, O_CLOEXEC));
    pid_t pid = OK(fork());
    if (pid == 0) {
        execlp("sleep", "sleep", "20", (char *)NULL);
        _exit(99);
    }
    OK(close(ends[1]));
    char c;
    EQ(read(ends[0], &c, 1), 0);
    OK(close(fd));
    int other = OK(open("f", O_RDWR)), taken = -1;
    for (int i = 0; i < 500 && taken != 0; i++) {
        taken = flock(other, LOCK_EX | LOCK_NB);
        usleep(10000);
    }
    OK(kill(pid, SIGKILL));
    EQ(waitpid(pid, NULL, 0), pid);
    EQ(taken, 0);
}

/* One that sees no /proc cannot tell who lives, and takes nobody for dead. */
CASE(holders_are_alive_from_within_a_chroot) {
    if (geteuid() != 0) SKIP("needs root");
    put("f", "x");
    int fd = OK(open("f", O_RDWR));
    OK(flock(fd, LOCK_EX));
    pid_t pid = OK(fork());
    if (pid == 0) {
        char empty[] = "/tmp/check-empty-XXXXXX";
        int other = open("f", O_RDWR);
        if (other < 0 || close(fd) != 0 || !mkdtemp(empty) || chroot(empty) != 0) _exit(1);
        _exit(flock(other, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK ? 0 : 2);
    }
    EQ(wait_for(pid), 0);
    EQ(system("rmdir /tmp/check-empty-*"), 0);
    int other = OK(open("f", O_RDWR));
    ERR(flock(other, LOCK_EX | LOCK_NB), EWOULDBLOCK);
}

static void *wait_for_record(void *fd) {
    struct flock whole = {.l_type = F_WRLCK};
    return fcntl(*(int *)fd, F_SETLKW, &whole) == 0 ? NULL : fd;
}

/* What another thread of its parent was doing keeps nothing in a forked child. */
CASE(a_child_is_not_in_the_calls_of_other_threads) {
    put("f", "x");
    int held[2], closed[2];
    OK(pipe(held));
    OK(pipe(closed));
    pid_t holder = OK(fork());
    if (holder == 0) {
        int fd = open("f", O_RDWR);
        struct flock whole = {.l_type = F_WRLCK};
        _exit(fd >= 0 && fcntl(fd, F_SETLK, &whole) == 0 && write(held[1], "h", 1) == 1 ? pause() : 1);
    }
    char c;
    EQ(read(held[0], &c, 1), 1);
    int fd = OK(open("f", O_RDWR));
    OK(flock(fd, LOCK_EX));
    pthread_t thread;
    EQ(pthread_create(&thread, NULL, wait_for_record, &fd), 0);
    usleep(100000);
    pid_t child = OK(fork());
    if (child == 0) _exit(close(fd) == 0 && write(closed[1], "c", 1) == 1 ? pause() : 1);
    EQ(read(closed[0], &c, 1), 1);
    OK(kill(holder, SIGKILL));
    EQ(waitpid(holder, NULL, 0), holder);
    void *failed;
    EQ(pthread_join(thread, &failed), 0);
    CHECK(!failed);
    OK(close(fd));
    int other = OK(open("f", O_RDWR));
    int taken = flock(other, LOCK_EX | LOCK_NB);
    OK(kill(child, SIGKILL));
    EQ(waitpid(child, NULL, 0), child);
    EQ(taken, 0);
}

CASE(thousands_of_ranges) {
    int fd = file();
    for (int i = 0; i < 2000; i++) OK(lock(fd, F_SETLK, F_WRLCK, i * 2, 1));
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    IN_CHILD(OK(lock(file(), F_SETLK, F_WRLCK, 0, 0)));
}

CASE(many_ranges) {
    int fd = file();
    for (int i = 0; i < 200; i++) OK(lock(fd, F_SETLK, F_WRLCK, i * 10, 5));
    IN_CHILD({
        int other = file();
        for (int i = 0; i < 200; i++) {
            ERR(lock(other, F_SETLK, F_WRLCK, i * 10 + 4, 1), EAGAIN);
            OK(lock(other, F_SETLK, F_WRLCK, i * 10 + 5, 5));
        }
    });
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    IN_CHILD(OK(lock(file(), F_SETLK, F_WRLCK, 0, 0)));
}
