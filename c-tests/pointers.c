/* NULL and wild pointers give EFAULT, never a signal. */
#include "check.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static void *wild(void) {
    void *p = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

CASE(data_calls) {
    put("f", "abcdefgh");
    int fd = OK(open("f", O_RDWR));
    void *bad[] = {NULL, (void *)1, wild(), (void *)0x7fffdeadb000, (void *)0xffff888000000000};
    for (int i = 0; i < 5; i++) {
        ERR(syscall(SYS_read, fd, bad[i], 4L), EFAULT);
        ERR(syscall(SYS_write, fd, bad[i], 4L), EFAULT);
        ERR(syscall(SYS_pread64, fd, bad[i], 4L, 0L), EFAULT);
        ERR(syscall(SYS_pwrite64, fd, bad[i], 4L, 0L), EFAULT);
        ERR(syscall(SYS_readv, fd, bad[i], 1L), EFAULT);
        struct iovec v = {bad[i], 4};
        ERR(readv(fd, &v, 1), EFAULT);
        ERR(writev(fd, &v, 1), EFAULT);
        EQ(lseek(fd, 0, SEEK_CUR), 0);
    }
    holds("f", "abcdefgh");
}

CASE(path_calls) {
    struct stat st;
    void *bad[] = {NULL, (void *)1, wild(), (void *)0xffff888000000000};
    put("f", "");
    for (int i = 0; i < 4; i++) {
        const char *p = bad[i];
        ERR(syscall(SYS_open, p, 0L), EFAULT);
        ERR(syscall(SYS_openat, AT_FDCWD, p, 0L), EFAULT);
        ERR(syscall(SYS_stat, p, &st), EFAULT);
        ERR(syscall(SYS_stat, "f", p), EFAULT);
        ERR(syscall(SYS_newfstatat, AT_FDCWD, "f", p, 0L), EFAULT);
        ERR(syscall(SYS_statx, AT_FDCWD, "f", 0L, 0x7ffL, p), EFAULT);
        ERR(syscall(SYS_mkdir, p, 0755L), EFAULT);
        ERR(syscall(SYS_unlink, p), EFAULT);
        ERR(syscall(SYS_rename, "f", p), EFAULT);
        ERR(syscall(SYS_rename, p, "f"), EFAULT);
        ERR(syscall(SYS_link, "f", p), EFAULT);
        ERR(syscall(SYS_symlink, p, "l"), EFAULT);
        ERR(syscall(SYS_chdir, p), EFAULT);
        ERR(syscall(SYS_chmod, p, 0644L), EFAULT);
        ERR(syscall(SYS_truncate, p, 0L), EFAULT);
        ERR(syscall(SYS_access, p, 0L), EFAULT);
    }
    OK(symlink("f", "s"));
    ERR(syscall(SYS_readlink, "s", wild(), 10L), EFAULT);
    ERR(syscall(SYS_getcwd, wild(), 4096L), EFAULT);
}

CASE(other_calls) {
    put("f", "x");
    int fd = OK(open("f", O_RDWR)), dir = OK(open(".", O_RDONLY));
    void *bad = wild();
    ERR(syscall(SYS_fstat, fd, bad), EFAULT);
    ERR(syscall(SYS_getdents64, dir, bad, 4096L), EFAULT);
    ERR(syscall(SYS_fcntl, fd, (long)F_SETLK, bad), EFAULT);
    ERR(syscall(SYS_fcntl, fd, (long)F_GETLK, bad), EFAULT);
    ERR(syscall(SYS_statfs, ".", bad), EFAULT);
    ERR(syscall(SYS_utimensat, AT_FDCWD, "f", bad, 0L), EFAULT);
    ERR(syscall(SYS_setxattr, "f", "user.a", bad, 4L, 0L), EFAULT);
    ERR(syscall(SYS_setxattr, "f", bad, "v", 1L, 0L), EFAULT);
    ERR(syscall(SYS_sendfile, fd, fd, bad, 1L), EFAULT);
}

CASE(statx_probe_of_rust) {
    errno = 0;
    CHECK(syscall(SYS_statx, 0, NULL, 0L, 0x7ffL, NULL) < 0);
    EQ(errno, EFAULT);
}

CASE(partly_readable_buffer) {
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    OK(munmap(p + 4096, 4096));
    strcpy(p + 4096 - 4, "abc");
    put("abc", "found");
    holds(p + 4096 - 4, "found");
    memset(p + 4000, 'x', 96);
    ERR(open(p + 4090, O_RDONLY), EFAULT);
    int fd = OK(open("abc", O_RDWR));
    ssize_t n = read(fd, p + 4096 - 2, 5);
    CHECK(n == 2 || (n == -1 && errno == EFAULT));
    OK(lseek(fd, 0, SEEK_SET));
    n = write(fd, p + 4096 - 2, 4);
    CHECK(n == 2 || n == 0 || (n == -1 && errno == EFAULT));
    CHECK(size_of("abc") == 5);
}

CASE(read_only_buffer) {
    put("f", "data");
    int fd = OK(open("f", O_RDONLY));
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ERR(read(fd, p, 4), EFAULT);
    EQ(lseek(fd, 0, SEEK_CUR), 0);
}

static sig_atomic_t caught;
static void on_segv(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)context;
    caught = info->si_addr != NULL;
    _exit(caught ? 42 : 1);
}

CASE(own_handler_still_runs) {
    put("f", "x");
    pid_t pid = OK(fork());
    if (pid == 0) {
        struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
        OK(sigaction(SIGSEGV, &sa, NULL));
        int fd = OK(open("f", O_RDONLY));
        ERR(read(fd, wild(), 1), EFAULT);
        struct sigaction now;
        OK(sigaction(SIGSEGV, NULL, &now));
        CHECK(now.sa_sigaction == on_segv);
        *(volatile int *)wild() = 1;
        _exit(1);
    }
    EQ(wait_for(pid), 42);
}

CASE(default_action_still_kills) {
    put("f", "x");
    pid_t pid = OK(fork());
    if (pid == 0) {
        holds("f", "x");
        *(volatile int *)wild() = 1;
        _exit(1);
    }
    int status;
    EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    EQ(WTERMSIG(status), SIGSEGV);
}
