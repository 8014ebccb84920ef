/* System calls made without libc: syscall(2) and the instruction itself, as Go, liburing and JITs do. */
#include "check.h"
#include <sys/syscall.h>

#if defined(__x86_64__)
static long raw(long nr, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
#else
static long raw(long nr, long a, long b, long c, long d) {
    long result = syscall(nr, a, b, c, d);
    return result < 0 ? -errno : result;
}
#endif

CASE(libc_syscall_function) {
    long fd = OK(syscall(SYS_openat, AT_FDCWD, "f", O_CREAT | O_RDWR, 0644));
    EQ(syscall(SYS_write, fd, "abc", 3L), 3);
    EQ(syscall(SYS_lseek, fd, 0L, (long)SEEK_SET), 0);
    char buf[4] = {0};
    EQ(syscall(SYS_read, fd, buf, 4L), 3);
    STR(buf, "abc");
    EQ(syscall(SYS_close, fd), 0);
    ERR(syscall(SYS_close, fd), EBADF);
}

CASE(instruction) {
    long fd = raw(SYS_openat, AT_FDCWD, (long)"f", O_CREAT | O_RDWR, 0644);
    CHECK(fd >= 0);
    EQ(raw(SYS_write, fd, (long)"abc", 3, 0), 3);
    char buf[4] = {0};
    EQ(raw(SYS_pread64, fd, (long)buf, 4, 0), 3);
    STR(buf, "abc");
    holds("f", "abc");
    EQ(raw(SYS_close, fd, 0, 0, 0), 0);
    EQ(raw(SYS_unlink, (long)"f", 0, 0, 0), 0);
    EQ(raw(SYS_openat, AT_FDCWD, (long)"f", O_RDONLY, 0), -ENOENT);
}

CASE(instruction_in_child) {
    put("f", "abc");
    IN_CHILD({
        long fd = raw(SYS_openat, AT_FDCWD, (long)"f", O_RDONLY, 0);
        char c;
        EQ(raw(SYS_read, fd, (long)&c, 1, 0), 1);
    });
}
