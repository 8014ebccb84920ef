/* mmap(2): private and shared mappings, coherence with read and write, between processes, after close and unlink. */
#include "check.h"
#include <setjmp.h>
#include <sys/mman.h>

static int make(size_t len) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    unsigned char *buf = malloc(len);
    fill(buf, len, 0, 11);
    EQ(write(fd, buf, len), len);
    free(buf);
    return fd;
}

static void *map(size_t len, int prot, int flags, int fd, off_t at) {
    void *p = mmap(NULL, len, prot, flags, fd, at);
    if (p == MAP_FAILED) FAIL("mmap: %s", strerrorname_np(errno));
    return p;
}

CASE(private_read) {
    int fd = make(100000);
    char *p = map(100000, PROT_READ, MAP_PRIVATE, fd, 0);
    filled(p, 100000, 0, 11);
    OK(close(fd));
    filled(p, 100000, 0, 11);
    OK(munmap(p, 100000));
}

CASE(offset_and_tail) {
    int fd = make(10000);
    char *p = map(8192, PROT_READ, MAP_SHARED, fd, 4096);
    filled(p, 10000 - 4096, 4096, 11);
    for (int i = 10000 - 4096; i < 8192; i++) EQ(p[i], 0);
}

CASE(private_write_stays_private) {
    int fd = make(8192);
    char *p = map(8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    memset(p, 'x', 8192);
    unsigned char buf[8192];
    EQ(pread(fd, buf, 8192, 0), 8192);
    filled(buf, 8192, 0, 11);
    EQ(p[77], 'x');
}

/* What a private mapping that was not stored to shows of later writes is not specified; here it shows them. */
CASE(large_private) {
    enum { LEN = 4 << 20 };
    int fd = make(LEN);
    char *p = map(LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *q = map(LEN, PROT_READ, MAP_PRIVATE, fd, 0);
    memcpy(p + 5000, "mine", 4);
    EQ(pwrite(fd, "later", 5, 5000), 5);
    EQ(pwrite(fd, "later", 5, 2 << 20), 5);
    MEM(p + 5000, "mine", 4);
    MEM(q + 5000, "later", 5);
    MEM(p + (2 << 20), "later", 5);
    OK(mprotect(q, LEN, PROT_READ | PROT_WRITE));
    OK(mprotect(q, 4096, PROT_READ | PROT_EXEC));
    q[5000] = 'L';
    ERR(madvise(p, 4096, MADV_REMOVE), EACCES);
    OK(msync(p, LEN, MS_SYNC));
    pid_t pid = OK(fork());
    if (pid == 0) {
        memcpy(p + 9000, "child", 5);
        _exit(memcmp(p + 5000, "mine", 4) != 0);
    }
    int status;
    OK(waitpid(pid, &status, 0));
    EQ(status, 0);
    filled(p + 9000, 5, 9000, 11);
    OK(munmap(p + 4096, LEN / 2));
    OK(munmap(p, LEN));
    OK(munmap(q, LEN));
    char buf[8] = {0};
    EQ(pread(fd, buf, 5, 5000), 5);
    STR(buf, "later");
    EQ(pread(fd, buf, 5, 9000), 5);
    filled(buf, 5, 9000, 11);
}

/* Pieces of a shared mapping go one by one; what was stored through each is in the file. */
CASE(shared_in_pieces) {
    enum { LEN = 1 << 20 };
    int fd = make(LEN);
    char *p = map(LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memcpy(p + 100, "first", 5);
    memcpy(p + 300000, "middle", 6);
    memcpy(p + LEN - 100, "last", 4);
    OK(munmap(p + 294912, 40960));
    OK(munmap(p, 8192));
    p = mremap(p + 8192, 8192, 4096, 0);
    if (p == MAP_FAILED) FAIL("mremap: %s", strerrorname_np(errno));
    char buf[8] = {0};
    EQ(pread(fd, buf, 5, 100), 5);
    STR(buf, "first");
    EQ(pread(fd, buf, 6, 300000), 6);
    STR(buf, "middle");
    OK(close(fd));
    pid_t pid = OK(fork());
    if (pid == 0) {
        memcpy(p, "child", 5);
        exit(0);
    }
    int status;
    OK(waitpid(pid, &status, 0));
    EQ(status, 0);
    memset(buf, 0, sizeof buf);
    fd = OK(open("f", O_RDWR));
    EQ(pread(fd, buf, 5, 8192), 5);
    STR(buf, "child");
    EQ(pread(fd, buf, 4, LEN - 100), 4);
    MEM(buf, "last", 4);
}

/* Random stores, by the program and by the kernel, to a large mapping that is synced, cut, moved and protected. */
static void store_at_random(int fd, unsigned char *model, size_t len, unsigned seed, int unmap) {
    unsigned char *p = map(len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    size_t start = 0;
    srandom(seed);
    int zero = OK(open("/dev/zero", O_RDONLY));
    for (int i = 0; i < 400; i++) {
        size_t at = start + (size_t)random() % (len - start - 20000), n = (size_t)random() % 9000 + 1;
        size_t page = at & ~(size_t)4095;
        switch (random() % 8) {
        case 0: OK(msync(p + page, len - page, random() % 2 ? MS_SYNC : MS_ASYNC)); break;
        case 1: EQ(pwrite(fd, "pwrite", 6, (off_t)at), 6); memcpy(model + at, "pwrite", 6); break;
        case 2: EQ(read(zero, p + at, n), n); memset(model + at, 0, n); break;
        case 3: OK(madvise(p + page, 8192, MADV_DONTNEED)); break;
        case 4: OK(mprotect(p + page, 8192, PROT_READ)); OK(mprotect(p + page, 8192, PROT_READ | PROT_WRITE)); break;
        case 5: if (i % 50 == 0) OK(fsync(fd)); break;
        default: memset(p + at, i, n); memset(model + at, i, n);
        }
        if (i == 200) {
            start = 65536;
            OK(munmap(p, start));
        } else if (i == 300) {
            unsigned char *to = map(len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (mremap(p + start, len - start, len - start, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
                FAIL("mremap: %s", strerrorname_np(errno));
            p = to - start;
        }
    }
    OK(close(zero));
    if (unmap) OK(munmap(p + start, len - start));
}

CASE(shared_stores_reach_the_file) {
    enum { LEN = 4 << 20 };
    unsigned char *model = malloc(LEN), *back = malloc(LEN);
    for (unsigned seed = 1; seed <= 6; seed++) {
        int fd = make(LEN);
        fill(model, LEN, 0, 11);
        if (seed % 3 == 0) {
            store_at_random(fd, model, LEN, seed, 1);
        } else {
            unsigned char *shared = map(LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            memcpy(shared, model, LEN);
            pid_t pid = OK(fork());
            if (pid == 0) {
                store_at_random(fd, shared, LEN, seed, 0);
                if (seed % 3 == 1) exit(0);
                kill(getpid(), SIGKILL);
            }
            int status;
            OK(waitpid(pid, &status, 0));
            EQ(status, seed % 3 == 1 ? 0 : SIGKILL);
            memcpy(model, shared, LEN);
            OK(munmap(shared, LEN));
        }
        EQ(pread(fd, back, LEN, 0), LEN);
        MEM(back, model, LEN);
        OK(close(fd));
        OK(unlink("f"));
    }
    free(model);
    free(back);
}

/* Parent and child store through the mapping they share; both end in order. */
CASE(shared_large_after_fork) {
    enum { LEN = 2 << 20 };
    int fd = make(LEN);
    char *p = map(LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memcpy(p + 5000, "before", 6);
    pid_t pid = OK(fork());
    if (pid == 0) {
        memcpy(p + 70000, "child", 5);
        exit(0);
    }
    memcpy(p + 900000, "parent", 6);
    int status;
    OK(waitpid(pid, &status, 0));
    EQ(status, 0);
    memcpy(p + LEN - 4, "last", 4);
    OK(munmap(p, LEN));
    char buf[8] = {0};
    EQ(pread(fd, buf, 6, 5000), 6);
    MEM(buf, "before", 6);
    EQ(pread(fd, buf, 5, 70000), 5);
    MEM(buf, "child", 5);
    EQ(pread(fd, buf, 6, 900000), 6);
    MEM(buf, "parent", 6);
    EQ(pread(fd, buf, 4, LEN - 4), 4);
    MEM(buf, "last", 4);
}

CASE(shared_write_is_read) {
    int fd = make(100000);
    char *p = map(100000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memcpy(p + 5000, "mapped", 6);
    char buf[8] = {0};
    EQ(pread(fd, buf, 6, 5000), 6);
    STR(buf, "mapped");
    EQ(pwrite(fd, "written", 7, 9000), 7);
    MEM(p + 9000, "written", 7);
    OK(msync(p, 100000, MS_SYNC));
    OK(munmap(p, 100000));
    int again = OK(open("f", O_RDONLY));
    EQ(pread(again, buf, 6, 5000), 6);
    STR(buf, "mapped");
}

CASE(shared_between_processes) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 4096));
    volatile int *p = map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    pid_t pid = OK(fork());
    if (pid == 0) {
        int other = OK(open("f", O_RDWR));
        volatile int *q = map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
        q[1] = 42;
        __sync_synchronize();
        q[0] = 1;
        while (q[2] != 7) usleep(100);
        _exit(0);
    }
    while (p[0] != 1) usleep(100);
    EQ(p[1], 42);
    p[2] = 7;
    EQ(wait_for(pid), 0);
}

CASE(shared_survives_exit) {
    IN_CHILD({
        int fd = make(50000);
        char *p = map(50000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        OK(close(fd));
        memcpy(p + 40000, "left behind", 11);
    });
    char buf[16] = {0};
    int fd = OK(open("f", O_RDONLY));
    EQ(pread(fd, buf, 11, 40000), 11);
    STR(buf, "left behind");
}

CASE(sees_growth) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 100));
    char *p = map(8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    OK(ftruncate(fd, 8192));
    p[8000] = 'g';
    char c;
    EQ(pread(fd, &c, 1, 8000), 1);
    EQ(c, 'g');
    EQ(pwrite(fd, "w", 1, 5000), 1);
    EQ(p[5000], 'w');
}

static sigjmp_buf back;
static void on_bus(int sig) { siglongjmp(back, sig); }

CASE(bus_error_past_end) {
    int fd = make(100);
    signal(SIGBUS, on_bus);
    volatile char *p = map(8192, PROT_READ, MAP_SHARED, fd, 0);
    int sig = sigsetjmp(back, 1);
    if (sig == 0) {
        (void)p[5000];
        FAIL("no SIGBUS");
    }
    EQ(sig, SIGBUS);
}

CASE(errors) {
    int fd = make(8192);
    int rd = OK(open("f", O_RDONLY)), wr = OK(open("f", O_WRONLY));
    CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, rd, 0) == MAP_FAILED);
    EQ(errno, EACCES);
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, wr, 0) == MAP_FAILED);
    EQ(errno, EACCES);
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 100) == MAP_FAILED);
    EQ(errno, EINVAL);
    CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED);
    EQ(errno, EINVAL);
    int dir = OK(open(".", O_RDONLY));
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, dir, 0) == MAP_FAILED);
    EQ(errno, ENODEV);
    map(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, rd, 0);
}

CASE(protect_and_remap) {
    int fd = make(8192);
    char *p = map(4096, PROT_READ, MAP_SHARED, fd, 0);
    OK(mprotect(p, 4096, PROT_READ | PROT_WRITE));
    p[0] = 'P';
    p = mremap(p, 4096, 8192, MREMAP_MAYMOVE);
    CHECK(p != MAP_FAILED);
    p[4096] = 'Q';
    char c;
    EQ(pread(fd, &c, 1, 0), 1);
    EQ(c, 'P');
    EQ(pread(fd, &c, 1, 4096), 1);
    EQ(c, 'Q');
    EQ(munmap(p, 8192), 0);
}

/* What a mapping is moved onto ends there; one that is doubled goes on in both places. */
CASE(remap_onto_and_double) {
    int f = make(3 * 4096), g = OK(open("g", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(g, 3 * 4096));
    char *p = map(2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
    char *q = map(3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, g, 0);
    memcpy(q + 5000, "before", 6);
    memcpy(p + 5000, "moved", 5);
    CHECK(mremap(p, 2 * 4096, 2 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
    OK(close(f));
    OK(close(g));
    MEM(q + 5000, "moved", 5);
    memcpy(q + 100, "later", 5);
    char *r = mremap(q, 0, 4096, MREMAP_MAYMOVE);
    CHECK(r != MAP_FAILED);
    OK(munmap(q, 3 * 4096));
    memcpy(r + 200, "twice", 5);
    OK(munmap(r, 4096));
    char text[6];
    g = OK(open("g", O_RDONLY));
    EQ(pread(g, text, 6, 5000), 6);
    MEM(text, "before", 6);
    f = OK(open("f", O_RDONLY));
    EQ(pread(f, text, 5, 5000), 5);
    MEM(text, "moved", 5);
    EQ(pread(f, text, 5, 100), 5);
    MEM(text, "later", 5);
    EQ(pread(f, text, 5, 200), 5);
    MEM(text, "twice", 5);
}

CASE(protect_up_to_what_is_read_only) {
    int fd = make(8192), reader = OK(open("f", O_RDONLY));
    char *p = map(8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(mmap(p + 4096, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, reader, 0) == p + 4096);
    OK(mprotect(p, 8192, PROT_READ));
    ERR(mprotect(p, 8192, PROT_READ | PROT_WRITE), EACCES);
    *(volatile char *)(p + 7) = 'x';
    EQ(*(volatile char *)(p + 4096 + 7), 'x');
    OK(munmap(p, 8192));
}

CASE(fixed_over_part) {
    int fd = make(16384);
    char *p = map(16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mmap(p + 4096, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 8192) == p + 4096);
    filled(p + 4096, 4096, 8192, 11);
    EQ(p[0], 0);
    OK(munmap(p + 4096, 4096));
    EQ(p[8192], 0);
}

CASE(after_unlink) {
    int fd = make(8192);
    char *p = map(8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    OK(unlink("f"));
    OK(close(fd));
    filled(p, 8192, 0, 11);
    p[1] = 'x';
    EQ(p[1], 'x');
}

CASE(truncated_under_map) {
    int fd = make(20000);
    char *p = map(20000, PROT_READ, MAP_SHARED, fd, 0);
    OK(ftruncate(fd, 50));
    OK(ftruncate(fd, 20000));
    EQ(p[100], 0);
    EQ(p[15000], 0);
}

CASE(in_child_after_fork) {
    int fd = make(8192);
    char *p = map(8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    IN_CHILD(memcpy(p + 10, "from child", 10));
    MEM(p + 10, "from child", 10);
    char buf[10];
    EQ(pread(fd, buf, 10, 10), 10);
    MEM(buf, "from child", 10);
}

CASE(read_into_mapping_and_write_from_it) {
    int fd = make(100000);
    int out = OK(open("g", O_CREAT | O_RDWR, 0644));
    char *p = map(100000, PROT_READ, MAP_SHARED, fd, 0);
    EQ(write(out, p, 100000), 100000);
    OK(ftruncate(out, 200000));
    char *q = map(200000, PROT_READ | PROT_WRITE, MAP_SHARED, out, 0);
    EQ(pread(fd, q + 100000, 100000, 0), 100000);
    filled(q, 100000, 0, 11);
    filled(q + 100000, 100000, 0, 11);
    OK(munmap(q, 200000));
    static unsigned char buf[100000];
    EQ(pread(out, buf, 100000, 100000), 100000);
    filled(buf, 100000, 0, 11);
}

CASE(mtime_moves) {
    int fd = make(4096);
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    char *p = map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    OK(futimens(fd, old));
    p[0] = 'x';
    OK(msync(p, 4096, MS_SYNC));
    OK(munmap(p, 4096));
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(st.st_mtim.tv_sec > 1000);
}

CASE(proc_maps_and_madvise) {
    int fd = make(65536);
    char *p = map(65536, PROT_READ, MAP_SHARED, fd, 0);
    OK(madvise(p, 65536, MADV_SEQUENTIAL));
    OK(madvise(p, 65536, MADV_WILLNEED));
    OK(madvise(p, 65536, MADV_DONTNEED));
    filled(p, 65536, 0, 11);
}
