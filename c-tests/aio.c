/* Asynchronous requests of the kernel: io_setup(2), io_submit(2), io_getevents(2), io_cancel(2), io_destroy(2). */
#include "check.h"
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

static aio_context_t setup(int depth) {
    aio_context_t ctx = 0;
    OK(syscall(SYS_io_setup, depth, &ctx));
    return ctx;
}

static long submit(aio_context_t ctx, long n, struct iocb **list) { return syscall(SYS_io_submit, ctx, n, list); }

static long events(aio_context_t ctx, long min, long max, struct io_event *out, struct timespec *timeout) {
    return syscall(SYS_io_getevents, ctx, min, max, out, timeout);
}

static struct iocb request(int op, int fd, void *buf, size_t len, off_t at) {
    return (struct iocb){.aio_lio_opcode = op, .aio_fildes = fd, .aio_buf = (uintptr_t)buf, .aio_nbytes = len,
                         .aio_offset = at, .aio_data = 0x1234 + (uint64_t)at};
}

/* The one event of one request. */
static long long one(aio_context_t ctx, struct iocb *cb) {
    struct iocb was = *cb, *list[] = {cb};
    struct io_event e = {0};
    EQ(submit(ctx, 1, list), 1);
    EQ(events(ctx, 1, 1, &e, NULL), 1);
    EQ(e.obj, (uintptr_t)cb);
    EQ(e.data, was.aio_data);
    was.aio_key = cb->aio_key;
    MEM(&was, cb, sizeof was);
    return e.res;
}

CASE(write_and_read) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    aio_context_t ctx = setup(8);
    char text[] = "asynchronous", got[64] = "";
    struct iocb w = request(IOCB_CMD_PWRITE, fd, text, 12, 5);
    EQ(one(ctx, &w), 12);
    EQ(size_of("f"), 17);
    struct iocb r = request(IOCB_CMD_PREAD, fd, got, sizeof got, 5);
    EQ(one(ctx, &r), 12);
    MEM(got, text, 12);
    r = request(IOCB_CMD_PREAD, fd, got, sizeof got, 17);
    EQ(one(ctx, &r), 0);
    EQ(lseek(fd, 0, SEEK_CUR), 0);
    OK(syscall(SYS_io_destroy, ctx));
}

CASE(vectors_and_sync) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    aio_context_t ctx = setup(8);
    char a[] = "one", b[] = "three", got[8] = "";
    struct iovec out[] = {{a, 3}, {b, 5}}, in[] = {{got, 2}, {got + 2, 6}};
    struct iocb w = request(IOCB_CMD_PWRITEV, fd, out, 2, 0);
    EQ(one(ctx, &w), 8);
    struct iocb r = request(IOCB_CMD_PREADV, fd, in, 2, 0);
    EQ(one(ctx, &r), 8);
    MEM(got, "onethree", 8);
    struct iocb s = {.aio_lio_opcode = IOCB_CMD_FSYNC, .aio_fildes = fd, .aio_data = 7};
    EQ(one(ctx, &s), 0);
    s.aio_lio_opcode = IOCB_CMD_FDSYNC;
    EQ(one(ctx, &s), 0);
    s.aio_nbytes = 1;
    struct iocb *list[] = {&s};
    ERR(submit(ctx, 1, list), EINVAL);
}

CASE(batch_with_other_files) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644)), null = OK(open("/dev/zero", O_RDWR));
    aio_context_t ctx = setup(32);
    static char buf[20][100];
    struct iocb cb[20], *list[20];
    for (int i = 0; i < 20; i++) {
        fill(buf[i], 100, i * 100, 1);
        cb[i] = request(IOCB_CMD_PWRITE, i % 3 == 1 ? null : fd, buf[i], 100, i * 100);
        list[i] = &cb[i];
    }
    EQ(submit(ctx, 20, list), 20);
    int seen[20] = {0}, count = 0;
    while (count < 20) {
        struct io_event e[7];
        long n = OK(events(ctx, 1, 7, e, NULL));
        for (long k = 0; k < n; k++) {
            int i = (int)((struct iocb *)(uintptr_t)e[k].obj - cb);
            CHECK(i >= 0 && i < 20 && !seen[i]++);
            EQ(e[k].res, 100);
            EQ(e[k].data, 0x1234 + i * 100);
        }
        count += n;
    }
    struct timespec now = {0, 0};
    struct io_event e;
    EQ(events(ctx, 0, 1, &e, &now), 0);
    for (int i = 0; i < 20; i++) {
        char got[100];
        if (i % 3 == 1) continue;
        EQ(pread(fd, got, 100, i * 100), 100);
        filled(got, 100, i * 100, 1);
    }
}

CASE(refused_at_once) {
    int in = OK(open("f", O_CREAT | O_RDONLY, 0644)), out = OK(open("f", O_WRONLY)), dir = OK(open(".", O_RDONLY));
    aio_context_t ctx = setup(8);
    char c[8] = "x";
    struct iocb good = request(IOCB_CMD_PWRITE, out, c, 1, 0), bad = request(IOCB_CMD_PWRITE, in, c, 1, 0);
    struct iocb *list[] = {&good, &bad, &good};
    EQ(submit(ctx, 3, list), 1);
    list[0] = &bad;
    ERR(submit(ctx, 1, list), EBADF);
    bad = request(IOCB_CMD_PREAD, out, c, 1, 0);
    ERR(submit(ctx, 1, list), EBADF);
    bad = request(IOCB_CMD_PREAD, in, c, 1, -5);
    ERR(submit(ctx, 1, list), EINVAL);
    bad = request(99, in, c, 1, 0);
    ERR(submit(ctx, 1, list), EINVAL);
    bad = request(IOCB_CMD_PREAD, dir, c, 1, 0);
    ERR(submit(ctx, 1, list), EINVAL);
    bad = request(IOCB_CMD_PREAD, in, c, 1, 0);
    bad.aio_rw_flags = 0x40000000;
    ERR(submit(ctx, 1, list), EOPNOTSUPP);
    ERR(submit(ctx, -1, list), EINVAL);
    ERR(submit(ctx, 1, NULL), EFAULT);
    list[0] = (struct iocb *)8;
    ERR(submit(ctx, 1, list), EFAULT);
    list[0] = &good;
    ERR(submit(ctx + 4096 * 1000, 1, list), EINVAL);
    EQ(submit(ctx, 0, NULL), 0);
    struct io_event e[4];
    EQ(events(ctx, 1, 4, e, NULL), 1);
    EQ(size_of("f"), 1);
}

CASE(refused_in_the_event) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    aio_context_t ctx = setup(8);
    struct iocb r = request(IOCB_CMD_PREAD, fd, (void *)8, 100, 0);
    EQ(write(fd, "abc", 3), 3);
    EQ(one(ctx, &r), -EFAULT);
    struct iocb w = request(IOCB_CMD_PWRITE, fd, (void *)8, 100, 0);
    EQ(one(ctx, &w), -EFAULT);
    w = request(IOCB_CMD_PWRITE, fd, "de", 2, 3);
    EQ(one(ctx, &w), 2);
    holds("f", "abcde");
}

CASE(appends) {
    int fd = OK(open("f", O_CREAT | O_RDWR | O_APPEND, 0644));
    aio_context_t ctx = setup(8);
    struct iocb w = request(IOCB_CMD_PWRITE, fd, "ab", 2, 100);
    EQ(one(ctx, &w), 2);
    EQ(one(ctx, &w), 2);
    holds("f", "abab");
}

CASE(tells_an_eventfd) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644)), told = OK(eventfd(0, EFD_NONBLOCK));
    aio_context_t ctx = setup(8);
    struct iocb w = request(IOCB_CMD_PWRITE, fd, "ab", 2, 0), *list[] = {&w, &w};
    w.aio_flags = IOCB_FLAG_RESFD;
    w.aio_resfd = told;
    EQ(submit(ctx, 2, list), 2);
    uint64_t count = 0;
    EQ(read(told, &count, 8), 8);
    EQ(count, 2);
    struct io_event e[2];
    EQ(events(ctx, 2, 2, e, NULL), 2);
    w.aio_resfd = fd;
    ERR(submit(ctx, 1, list), EINVAL);
}

CASE(polls) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644)), p[2];
    OK(pipe(p));
    aio_context_t ctx = setup(8);
    struct iocb f = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = fd, .aio_buf = POLLIN, .aio_data = 1};
    struct iocb q = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = p[0], .aio_buf = POLLIN, .aio_data = 2};
    struct iocb *list[] = {&f, &q};
    long n = submit(ctx, 2, list);
    if (n < 0) SKIP("no IOCB_CMD_POLL");
    struct io_event e[2] = {0};
    EQ(n, 2);
    EQ(events(ctx, 1, 2, e, NULL), 1);
    EQ(e[0].data, 1);
    EQ(write(p[1], "x", 1), 1);
    EQ(events(ctx, 1, 2, e, NULL), 1);
    EQ(e[0].data, 2);
}

CASE(ring_fills) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    aio_context_t ctx = setup(4);
    struct iocb w = request(IOCB_CMD_PWRITE, fd, "ab", 2, 0), *list[] = {&w};
    int n = 0;
    while (submit(ctx, 1, list) == 1) n++;
    EQ(errno, EAGAIN);
    CHECK(n >= 4);
    struct io_event e;
    for (int i = 0; i < n; i++) EQ(events(ctx, 1, 1, &e, NULL), 1);
    EQ(submit(ctx, 1, list), 1);
}

static aio_context_t shared;
static volatile int served;
enum { ROUNDS = 4000 };

/* Takes events as they come and uses their requests again at once. */
static void *reaper(void *arg) {
    (void)arg;
    while (served < ROUNDS) {
        struct io_event e[4];
        long n = OK(events(shared, 1, 4, e, NULL));
        for (long k = 0; k < n; k++) {
            struct iocb *cb = (struct iocb *)(uintptr_t)e[k].obj;
            EQ(e[k].res, (long long)cb->aio_nbytes);
            EQ(cb->aio_lio_opcode, IOCB_CMD_PWRITE);
            EQ(cb->aio_offset, (long long)(e[k].data - 0x1234));
            served++;
            __atomic_store_n(&cb->aio_offset, -1, __ATOMIC_RELEASE);
        }
    }
    return NULL;
}

CASE(two_threads) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    static char buf[64];
    static struct iocb cb[8];
    static int busy[8];
    shared = setup(64);
    pthread_t t;
    EQ(pthread_create(&t, NULL, reaper, NULL), 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct iocb *one = &cb[i % 8];
        while (busy[i % 8] && __atomic_load_n(&one->aio_offset, __ATOMIC_ACQUIRE) != -1) sched_yield();
        busy[i % 8] = 1;
        *one = request(IOCB_CMD_PWRITE, fd, buf, 1 + i % 64, i % 1000);
        EQ(submit(shared, 1, &one), 1);
    }
    EQ(pthread_join(t, NULL), 0);
}
