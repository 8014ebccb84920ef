/* Processes that store to the same pages at once, through mappings and by writing, each to bytes of its own; some are
 * killed, and what they had stored stays, whoever syncs, unmaps, truncates behind it or looks on. */
#define CHECK_SECONDS 170
#include "check.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

enum { OWNERS = 6, LEN = 6 << 20, CELLS = 48 };

/* What the owners have stored last; it survives them. */
struct model {
    volatile unsigned done[OWNERS][CELLS], begun[OWNERS][CELLS];
};

static struct model *model;
static time_t until;
static unsigned rng;

static unsigned pick(unsigned limit) {
    rng ^= rng << 13;
    rng ^= rng >> 17;
    rng ^= rng << 5;
    return rng % limit;
}

/* Cells lie beside each other, many to a page, and in several parts of the file. */
static off_t at(int owner, int cell) {
    static const off_t parts[] = {0, 4096 * 3 - 24, (2 << 20) - 48, 5 << 20};
    return parts[cell % 4] + (cell / 4 * OWNERS + owner) * (off_t)sizeof(unsigned);
}

static char *view(int fd) {
    char *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) FAIL("mmap: %s", strerrorname_np(errno));
    return p;
}

static void matches(int owner, int cell, unsigned got, const char *how) {
    unsigned done = model->done[owner][cell], begun = model->begun[owner][cell];
    if (got != done && got != begun) FAIL("owner %d cell %d: %u by %s, expected %u or %u", owner, cell, got, how, done, begun);
}

static void look(int owner, int cell, int fd, const char *map) {
    unsigned got;
    if (pick(2)) {
        matches(owner, cell, *(volatile unsigned *)(map + at(owner, cell)), "load");
    } else {
        EQ(pread(fd, &got, sizeof got, at(owner, cell)), sizeof got);
        matches(owner, cell, got, "read");
    }
}

static void change(int owner, int cell, int fd, char *map) {
    unsigned next = model->done[owner][cell] + 1;
    if (model->begun[owner][cell] == next) next++;
    look(owner, cell, fd, map);
    model->begun[owner][cell] = next;
    if (pick(3)) {
        *(volatile unsigned *)(map + at(owner, cell)) = next;
    } else {
        EQ(pwrite(fd, &next, sizeof next, at(owner, cell)), sizeof next);
    }
    model->done[owner][cell] = next;
    look(owner, cell, fd, map);
}

static void own(int owner, unsigned seed) {
    rng = seed * 2654435761u + 1;
    int fd = OK(open("f", O_RDWR));
    char *map = view(fd);
    /* A killed process may have left a store begun or not. */
    for (int cell = 0; cell < CELLS; cell++) {
        unsigned got = *(volatile unsigned *)(map + at(owner, cell));
        matches(owner, cell, got, "load after a death");
        model->done[owner][cell] = model->begun[owner][cell] = got;
    }
    while (time(NULL) < until) {
        change(owner, (int)pick(CELLS), fd, map);
        switch (pick(24)) {
            case 0:
                OK(msync(map + pick(LEN / 4096) * 4096, 4096, pick(2) ? MS_SYNC : MS_ASYNC));
                break;
            case 1:
                OK(msync(map, LEN, MS_SYNC));
                break;
            case 2:
                if (pick(4) == 0) OK(fsync(fd));
                break;
            case 3:
                OK(munmap(map, LEN));
                map = view(fd);
                break;
            case 4:
                OK(munmap(map, LEN));
                OK(close(fd));
                fd = OK(open("f", O_RDWR));
                map = view(fd);
                break;
            case 5: {
                /* Somebody else grows the file and cuts it again behind all cells. */
                OK(ftruncate(fd, LEN + (off_t)pick(1 << 20)));
                break;
            }
            case 6:
                if (pick(8) == 0) {
                    pid_t pid = OK(fork());
                    if (pid == 0) {
                        for (int i = 0; i < 5; i++) change(owner, (int)pick(CELLS), fd, map);
                        if (pick(2)) kill(getpid(), SIGKILL);
                        _exit(0);
                    }
                    int status;
                    EQ(waitpid(pid, &status, 0), pid);
                    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
                }
                break;
            case 7:
                if (pick(8) == 0) {
                    /* The process goes on in its child. */
                    pid_t pid = OK(fork());
                    if (pid > 0) {
                        int status;
                        EQ(waitpid(pid, &status, 0), pid);
                        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 0);
                    }
                }
                break;
        }
    }
    _exit(0);
}

/* Waits for a process and all its descendants, which are in its group. */
static void end_of(pid_t group) {
    int status;
    while (waitpid(-group, &status, 0) > 0) {
        if (WIFEXITED(status)) EQ(WEXITSTATUS(status), 0);
    }
    EQ(errno, ECHILD);
}

CASE(owners_of_bytes) {
    const char *s = getenv("STRESS_SECONDS");
    until = time(NULL) + 3 * (s ? atoi(s) : 5);
    model = mmap(NULL, sizeof *model, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(model != MAP_FAILED);
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, LEN));
    rng = 77;
    pid_t pids[OWNERS];
    for (int i = 0; i < OWNERS; i++) {
        pids[i] = OK(fork());
        if (pids[i] == 0) {
            setpgid(0, 0);
            own(i, (unsigned)i);
        }
        setpgid(pids[i], pids[i]);
    }
    for (unsigned round = 0; time(NULL) < until; round++) {
        usleep(5000 + pick(40000));
        int owner = (int)(round % 3);
        /* The whole family at once, so that nobody stores for it any more. */
        kill(-pids[owner], SIGKILL);
        end_of(pids[owner]);
        pids[owner] = OK(fork());
        if (pids[owner] == 0) {
            setpgid(0, 0);
            own(owner, 1000 + round);
        }
        setpgid(pids[owner], pids[owner]);
    }
    for (int i = 0; i < OWNERS; i++) end_of(pids[i]);
    for (int owner = 0; owner < OWNERS; owner++) {
        for (int cell = 0; cell < CELLS; cell++) {
            unsigned got;
            EQ(pread(fd, &got, sizeof got, at(owner, cell)), sizeof got);
            matches(owner, cell, got, "read at the end");
        }
    }
}

/* Addresses that one thread gives back are at once another one's; moving frees them, too. */
static void *map_and_unmap(void *arg) {
    long me = (long)arg;
    unsigned state = (unsigned)me * 7919 + 1;
    char name[16];
    snprintf(name, sizeof name, "t%ld", me);
    int fd = OK(open(name, O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 1 << 16));
    for (unsigned round = 1; time(NULL) < until; round++) {
        size_t len = 4096 << (state = state * 1103515245 + 12345, state >> 16) % 3;
        char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) FAIL("mmap: %s", strerrorname_np(errno));
        *(volatile unsigned *)p = round;
        if (round % 5 == 0) {
            char *q = mremap(p, len, 8 * len, MREMAP_MAYMOVE);
            if (q == MAP_FAILED) FAIL("mremap: %s", strerrorname_np(errno));
            p = q;
            len *= 8;
        }
        if (round % 3 == 0) sched_yield();
        *(volatile unsigned *)(p + 2048) = round;
        OK(munmap(p, len));
        unsigned got[2];
        EQ(pread(fd, &got[0], 4, 0), 4);
        EQ(pread(fd, &got[1], 4, 2048), 4);
        EQ(got[0], round);
        EQ(got[1], round);
    }
    return NULL;
}

CASE(threads_map_and_unmap) {
    const char *s = getenv("STRESS_SECONDS");
    until = time(NULL) + (s ? atoi(s) : 5);
    pthread_t t[6];
    for (long i = 0; i < 6; i++) EQ(pthread_create(&t[i], NULL, map_and_unmap, (void *)i), 0);
    for (int i = 0; i < 6; i++) EQ(pthread_join(t[i], NULL), 0);
}
