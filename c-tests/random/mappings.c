/* Random operations of several processes on mappings of a few files: prints every operation with its result.
 *
 *   mappings DIR SEED COUNT
 *
 * The processes work one at a time, each at its turn, so the output on two file systems must be equal. They map, store,
 * write, truncate, rename and remove; they fork, execute themselves again, and are killed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 4, FDS = 4, MAPS = 6, PAGE = 4096, LARGE = 300, BUF = 1 << 17 };

enum op {
    OPEN, CLOSE, MAP_SHARE, MAP_OWN, STORE, LOAD, PWRITE, PREAD, APPEND, TRUNCATE, ALLOCATE, PUNCH, MSYNC, UNMAP, REMAP,
    DONTNEED, PROTECT, FSYNC, RENAME, UNLINK, LINK, COPY, FROM_MAP, TO_MAP, CONTENT, MAP_OVER, ADVISE,
    FORK, EXEC, EXIT, KILL, OPS
};

static const char *const op_names[] = {
    "open", "close", "map shared", "map private", "store", "load", "pwrite", "pread", "append", "truncate", "allocate",
    "punch", "msync", "unmap", "remap", "dontneed", "protect", "fsync", "rename", "unlink", "link", "copy", "write from map",
    "read to map", "content", "map over", "advise", "fork", "exec", "exit", "kill"};
/* How often each is picked. */
static const int weights[] = {12, 4, 14, 6, 40, 30, 20, 20, 4, 8, 3, 4, 8, 10, 6, 3, 3, 5, 4, 3, 2, 5, 4, 4, 12, 3, 2, 2, 2, 2, 2};
_Static_assert(sizeof weights / sizeof *weights == OPS, "a weight for each");
_Static_assert(sizeof op_names / sizeof *op_names == OPS, "a name for each");

/* The last one keeps its name and is never cut: what private mappings show then is the same everywhere. */
static const char *const names[] = {"a", "b", "c", "d/a", "steady"};
enum { NAMES = sizeof names / sizeof *names, CHANGING = NAMES - 1 };

struct command {
    enum op op;
    int fd, map, other;
    long pos, len, arg;
    unsigned seed;
};

struct reply {
    pid_t pid;
    char text[160];
};

/* A mapping of a worker. */
struct map {
    char *base;
    size_t len;
    int shared, prot;
    /* A private one's pages that were stored to: only those are used afterwards. */
    unsigned char own[LARGE * 4];
};

static int in, out;
static int fds[FDS];
static struct map maps[MAPS];
static char buf[BUF];
static sigjmp_buf fault;
static volatile sig_atomic_t guarded;

static void on_fault(int sig) {
    if (!guarded) _exit(100 + sig);
    siglongjmp(fault, sig);
}

static unsigned long digest(const void *data, size_t len) {
    unsigned long h = 1469598103934665603UL;
    for (size_t i = 0; i < len; i++) h = (h ^ ((const unsigned char *)data)[i]) * 1099511628211UL;
    return h;
}

static unsigned long digest_words(unsigned long h, const char *data, size_t len) {
    unsigned long word;
    for (size_t i = 0; i < len; i += sizeof word) {
        word = 0;
        memcpy(&word, data + i, len - i < sizeof word ? len - i : sizeof word);
        h = (h ^ word) * 1099511628211UL;
        h ^= h >> 29;
    }
    return h;
}

static void random_bytes(char *to, size_t len, unsigned seed) {
    uint64_t x = seed;
    for (size_t i = 0; i < len; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        to[i] = (char)(x >> 56);
    }
}

static void say(struct reply *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct reply *r, const char *fmt, ...) {
    size_t at = strlen(r->text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->text + at, sizeof r->text - at, fmt, ap);
    va_end(ap);
}

static void result(struct reply *r, long value) {
    if (value < 0) {
        say(r, " = %s", strerrorname_np(errno));
    } else {
        say(r, " = %ld", value);
    }
}

/* Where bytes of a mapping begin, and how many there are. */
static size_t within(const struct map *m, const struct command *c, size_t *len) {
    size_t at = (size_t)c->pos % m->len;
    *len = (size_t)c->len < m->len - at ? (size_t)c->len : m->len - at;
    return at;
}

/* How many bytes can be read until a fault, and all of them as they are now. */
static size_t reach(const struct map *m, size_t at, size_t len, int store) {
    volatile size_t done = 0;
    if (sigsetjmp(fault, 1) == 0) {
        guarded = 1;
        for (; done < len; done++) {
            char byte = *(volatile char *)(m->base + at + done);
            if (store) *(volatile char *)(m->base + at + done) = byte;
            buf[done % BUF] = byte;
        }
    }
    guarded = 0;
    return done;
}

static int is_steady(int fd) {
    struct stat st, known;
    return stat(names[CHANGING], &known) == 0 && fstat(fd, &st) == 0 && st.st_ino == known.st_ino;
}

static void do_map(struct reply *r, const struct command *c) {
    struct map *m = &maps[c->map];
    int shared = c->op == MAP_SHARE;
    if (m->base || fds[c->fd] < 0 || (!shared && !is_steady(fds[c->fd]))) {
        say(r, " no room");
        return;
    }
    int prot = shared && c->arg & 1 ? PROT_READ : PROT_READ | PROT_WRITE;
    int flags = (shared ? MAP_SHARED : MAP_PRIVATE) | (c->arg & 2 ? MAP_POPULATE : 0);
    size_t len = (size_t)(c->arg & 4 ? LARGE : c->len / PAGE % 20 + 1) * PAGE;
    char *p = mmap(NULL, len, prot, flags, fds[c->fd], c->pos / PAGE % LARGE * PAGE);
    if (p == MAP_FAILED) {
        result(r, -1);
        return;
    }
    *m = (struct map){.base = p, .len = len, .shared = shared, .prot = prot};
    say(r, " pages %zu prot %d", len / PAGE, prot);
    if (!shared) {
        size_t owned = reach(m, 0, len, 1);
        say(r, " owned %zu digest %lx", owned, digest(buf, owned < BUF ? owned : BUF));
        memset(m->own, 1, owned / PAGE);
    }
    result(r, 0);
}

static void do_store(struct reply *r, const struct command *c) {
    struct map *m = &maps[c->map];
    size_t len, at = within(m, c, &len);
    random_bytes(buf, len, c->seed);
    volatile size_t done = 0;
    int sig = sigsetjmp(fault, 1);
    if (sig == 0) {
        guarded = 1;
        for (; done < len && (m->shared || m->own[(at + done) / PAGE]); done++) {
            *(volatile char *)(m->base + at + done) = buf[done];
        }
    }
    guarded = 0;
    say(r, " at %zu len %zu signal %d done %zu", at, len, sig, (size_t)done);
}

static void do_load(struct reply *r, const struct command *c) {
    struct map *m = &maps[c->map];
    size_t len, at = within(m, c, &len);
    if (!m->shared) {
        size_t end = at;
        while (end < at + len && m->own[end / PAGE]) end = (end / PAGE + 1) * PAGE;
        len = end < at + len ? end - at : len;
    }
    size_t done = reach(m, at, len, 0);
    say(r, " at %zu len %zu done %zu digest %lx", at, len, done, digest(buf, done));
}

static void do_unmap(struct reply *r, const struct command *c) {
    struct map *m = &maps[c->map];
    size_t pages = m->len / PAGE, from = 0, to = pages;
    if (c->arg % 3 && pages > 1) {
        from = (size_t)c->pos % pages;
        to = from + 1 + (size_t)c->len % (pages - from);
    }
    struct map tail = *m;
    tail.base += to * PAGE;
    tail.len -= to * PAGE;
    memmove(tail.own, tail.own + to, sizeof tail.own - to);
    int free = -1;
    for (int i = 0; i < MAPS; i++) {
        if (!maps[i].base) free = i;
    }
    if (from > 0 && to < pages && free < 0) {
        /* No place to remember the rest in. */
        to = pages;
        tail.len = 0;
    }
    long got = munmap(m->base + from * PAGE, (to - from) * PAGE);
    say(r, " pages %zu to %zu of %zu", from, to, pages);
    result(r, got);
    m->len = from * PAGE;
    if (from == 0) {
        *m = tail.len ? tail : (struct map){.base = NULL};
    } else if (tail.len) {
        maps[free] = tail;
    }
}

static void do_remap(struct reply *r, const struct command *c) {
    struct map *m = &maps[c->map];
    size_t pages = (size_t)c->len % 40 + 1;
    char *p = mremap(m->base, m->len, pages * PAGE, MREMAP_MAYMOVE);
    say(r, " pages %zu to %zu", m->len / PAGE, pages);
    if (p == MAP_FAILED) {
        result(r, -1);
        return;
    }
    for (size_t i = m->len / PAGE; i < pages; i++) m->own[i] = 0;
    m->base = p;
    m->len = pages * PAGE;
    result(r, 0);
}

/* In place of a part of a mapping comes one of another file. */
static void do_map_over(struct reply *r, const struct command *c) {
    struct map *m = &maps[c->map];
    if (fds[c->fd] < 0 || !m->shared) {
        say(r, " no file");
        return;
    }
    size_t pages = m->len / PAGE, from = (size_t)c->arg % pages;
    char *p = mmap(m->base + from * PAGE, m->len - from * PAGE, m->prot, MAP_FIXED | MAP_SHARED, fds[c->fd],
                   c->pos / PAGE * PAGE);
    say(r, " pages %zu to %zu", from, pages);
    result(r, p == MAP_FAILED ? -1 : 0);
}

static void do_part(struct reply *r, const struct command *c) {
    struct map *m = &maps[c->map];
    size_t pages = m->len / PAGE, from = (size_t)c->pos % pages, len = 1 + (size_t)c->len % (pages - from);
    char *at = m->base + from * PAGE;
    say(r, " pages %zu to %zu", from, from + len);
    switch (c->op) {
        case MSYNC:
            result(r, msync(at, len * PAGE, c->arg & 1 ? MS_SYNC : MS_ASYNC));
            break;
        case DONTNEED:
            result(r, madvise(at, len * PAGE, MADV_DONTNEED));
            /* What was the program's own is the file's again. */
            for (size_t i = from; i < from + len; i++) m->own[i] = 0;
            break;
        case ADVISE: {
            static const int advice[] = {MADV_WILLNEED, MADV_SEQUENTIAL, MADV_RANDOM, MADV_NORMAL, MADV_COLD, MADV_PAGEOUT};
            result(r, madvise(at, len * PAGE, advice[c->arg % 6]));
            break;
        }
        default:
            /* The whole: pieces would not be moved at once later. */
            m->prot = c->arg & 1 ? PROT_READ : PROT_READ | PROT_WRITE;
            say(r, " prot %d", m->prot);
            if (mprotect(m->base, m->len, m->prot) < 0) {
                m->prot = PROT_READ;
                result(r, -1);
            } else {
                result(r, 0);
            }
    }
}

static void do_content(struct reply *r, const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        result(r, -1);
        return;
    }
    unsigned long h = 1;
    long total = 0, got;
    while ((got = read(fd, buf, sizeof buf)) > 0) {
        h = digest_words(h, buf, (size_t)got);
        total += got;
    }
    struct stat st;
    long known = fstat(fd, &st) < 0 ? -1 : (long)st.st_size;
    close(fd);
    say(r, " size %ld digest %lx", known, h);
    result(r, got < 0 ? got : total);
}

static void do_copy(struct reply *r, const struct command *c) {
    int from = fds[c->fd], to = fds[c->other];
    off_t off = c->pos, to_off = c->arg;
    struct stat st, other;
    if (fstat(from, &st) == 0 && fstat(to, &other) == 0 && st.st_ino == other.st_ino && labs(off - to_off) < c->len) {
        /* What a piece shows that was written meanwhile differs between file systems. */
        say(r, " of itself");
    } else if (c->seed & 1) {
        result(r, copy_file_range(from, &off, to, &to_off, (size_t)c->len, 0));
    } else if (lseek(to, to_off, SEEK_SET) < 0) {
        result(r, -1);
    } else {
        result(r, sendfile(to, from, &off, (size_t)c->len));
    }
}

static void go_on(const char *self, int from, int to);

static void obey(struct reply *r, const struct command *c, const char *self) {
    const char *name = names[c->other % CHANGING], *second = names[c->arg % CHANGING];
    int fd = fds[c->fd];
    if (c->op >= STORE && c->op <= LOAD && !maps[c->map].base) {
        say(r, " no map");
        return;
    }
    switch (c->op) {
        case OPEN:
            if (fd >= 0) close(fd);
            name = names[c->arg % NAMES];
            fds[c->fd] = open(name, O_CREAT | (c->arg & 7 ? O_RDWR : O_RDONLY) | (c->arg & 48 || name == names[CHANGING] ? 0 : O_TRUNC), 0644);
            say(r, " %s flags %ld", name, c->arg & 63);
            result(r, fds[c->fd] < 0 ? -1 : 0);
            break;
        case CLOSE:
            result(r, close(fd));
            fds[c->fd] = -1;
            break;
        case MAP_SHARE:
        case MAP_OWN: do_map(r, c); break;
        case STORE: do_store(r, c); break;
        case LOAD: do_load(r, c); break;
        case PWRITE:
            random_bytes(buf, (size_t)c->len, c->seed);
            result(r, pwrite(fd, buf, (size_t)c->len, c->pos));
            break;
        case PREAD: {
            long got = pread(fd, buf, (size_t)c->len, c->pos);
            if (got >= 0) say(r, " digest %lx", digest(buf, (size_t)got));
            result(r, got);
            break;
        }
        case APPEND: {
            int end = open(name, O_WRONLY | O_APPEND);
            random_bytes(buf, (size_t)c->len, c->seed);
            say(r, " %s", name);
            result(r, end < 0 ? -1 : write(end, buf, (size_t)c->len));
            if (end >= 0) close(end);
            break;
        }
        case TRUNCATE:
            if (c->arg & 1) {
                if (fd >= 0 && is_steady(fd)) {
                    say(r, " not this one");
                } else {
                    result(r, ftruncate(fd, c->pos));
                }
            } else {
                say(r, " %s", name);
                result(r, truncate(name, c->pos));
            }
            break;
        case ALLOCATE: result(r, fallocate(fd, c->arg & 1 ? FALLOC_FL_KEEP_SIZE : 0, c->pos, c->len + 1)); break;
        case PUNCH: result(r, fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, c->pos, c->len + 1)); break;
        case UNMAP:
        case REMAP:
        case MAP_OVER:
        case MSYNC:
        case DONTNEED:
        case ADVISE:
        case PROTECT:
            if (!maps[c->map].base) {
                say(r, " no map");
            } else if (c->op == UNMAP) {
                do_unmap(r, c);
            } else if (c->op == REMAP) {
                do_remap(r, c);
            } else if (c->op == MAP_OVER) {
                do_map_over(r, c);
            } else {
                do_part(r, c);
            }
            break;
        case FSYNC: result(r, c->arg & 1 ? fsync(fd) : fdatasync(fd)); break;
        case RENAME:
            say(r, " %s %s", name, second);
            result(r, rename(name, second));
            break;
        case UNLINK:
            say(r, " %s", name);
            result(r, unlink(name));
            break;
        case LINK:
            say(r, " %s %s", name, second);
            result(r, link(name, second));
            break;
        case COPY: do_copy(r, c); break;
        case FROM_MAP:
        case TO_MAP: {
            struct map *m = &maps[c->map];
            if (!m->base || !m->shared) {
                say(r, " no map");
                break;
            }
            size_t len, at = within(m, c, &len);
            /* What a write of nothing but a fault does to the size differs between file systems. */
            if (reach(m, at, len, 0) < len) {
                say(r, " beyond the end");
                break;
            }
            long got = c->op == FROM_MAP ? pwrite(fd, m->base + at, len, c->arg) : pread(fd, m->base + at, len, c->arg);
            say(r, " at %zu len %zu", at, len);
            result(r, got);
            break;
        }
        case CONTENT:
            name = names[c->arg % NAMES];
            say(r, " %s", name);
            do_content(r, name);
            break;
        case FORK: {
            /* The child goes on in the parent's place. */
            pid_t pid = fork();
            if (pid < 0) {
                result(r, -1);
            } else if (pid > 0) {
                if (c->arg & 1) _exit(0);
                /* Stays for a while, with all its mappings, and ends by itself. */
                usleep((useconds_t)(c->pos % 20000));
                _exit(0);
            } else {
                r->pid = getpid();
                result(r, 0);
            }
            break;
        }
        case EXEC: go_on(self, in, out); break;
        case EXIT: _exit((int)c->arg & 1);
        case KILL:
        case OPS: abort();
    }
}

static void work(const char *self, const char *how) {
    struct reply r = {.pid = getpid()};
    struct command c;
    signal(SIGBUS, on_fault);
    signal(SIGSEGV, on_fault);
    if (how) {
        say(&r, "%s", how);
        if (write(out, &r, sizeof r) != sizeof r) _exit(1);
    }
    while (read(in, &c, sizeof c) == sizeof c) {
        r = (struct reply){.pid = getpid()};
        errno = 0;
        obey(&r, &c, self);
        if (write(out, &r, sizeof r) != sizeof r) _exit(1);
    }
    _exit(0);
}

/* Executes the program again as a worker with the descriptors it has. */
static void go_on(const char *self, int from, int to) {
    char text[FDS + 2][16];
    char *argv[FDS + 6] = {(char *)self, "-"};
    for (int i = 0; i < FDS + 2; i++) {
        snprintf(text[i], sizeof text[i], "%d", i == 0 ? from : i == 1 ? to : fds[i - 2]);
        argv[i + 2] = text[i];
    }
    execv(self, argv);
    _exit(9);
}

static uint64_t state;

static unsigned pick(unsigned limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 20) % limit;
}

static long place(void) {
    static const long places[] = {0, 0, 0, 100, PAGE, 3 * PAGE, 10 * PAGE, (2 << 20) - PAGE, 2 << 20, (4 << 20) - 100, 5 << 20};
    return places[pick(sizeof places / sizeof *places)] + (pick(2) ? (long)pick(30000) : (long)pick(8) * PAGE);
}

static long length(void) {
    static const long lengths[] = {1, 7, 100, PAGE - 1, PAGE, PAGE + 1, 20000, 65536, BUF};
    return lengths[pick(sizeof lengths / sizeof *lengths)];
}

struct worker {
    pid_t pid;
    int to, from;
};

static struct worker workers[WORKERS];
static char self[PATH_MAX];

static void begin(struct worker *w) {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0) abort();
    w->pid = fork();
    if (w->pid == 0) {
        for (int i = 0; i < FDS; i++) fds[i] = -1;
        in = dup(to[0]);
        out = dup(from[1]);
        close(to[0]);
        close(to[1]);
        close(from[0]);
        close(from[1]);
        for (int i = 0; i < WORKERS; i++) {
            if (workers[i].to > 0) close(workers[i].to);
            if (workers[i].from > 0) close(workers[i].from);
        }
        work(self, NULL);
    }
    close(to[0]);
    close(from[1]);
    w->to = to[1];
    w->from = from[0];
}

static void gone(struct worker *w) {
    int status;
    close(w->to);
    close(w->from);
    w->to = w->from = 0;
    /* Who took the place of a process that stays for a while is not yet ours to wait for. */
    if (waitpid(w->pid, &status, 0) == w->pid && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
        printf(" ended by signal %d", WTERMSIG(status));
    }
    printf("\n");
    begin(w);
}

int main(int argc, char **argv) {
    if (argc == FDS + 4 && strcmp(argv[1], "-") == 0) {
        in = atoi(argv[2]);
        out = atoi(argv[3]);
        for (int i = 0; i < FDS; i++) fds[i] = atoi(argv[i + 4]);
        work(argv[0], " again");
    }
    if (argc != 4 || chdir(argv[1]) != 0 || mkdir("d", 0755) != 0) {
        fprintf(stderr, "usage: %s DIR SEED COUNT\n", argv[0]);
        return 2;
    }
    if (!realpath("/proc/self/exe", self)) return 2;
    int fd = open(names[CHANGING], O_CREAT | O_RDWR, 0644);
    random_bytes(buf, BUF, 1);
    for (int i = 0; i < LARGE * PAGE / BUF + 3; i++) {
        if (pwrite(fd, buf, BUF, (off_t)i * BUF) != BUF) return 2;
    }
    close(fd);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    state = strtoull(argv[2], NULL, 10) * 0x9E3779B97F4A7C15u + 1;
    int total = 0;
    for (int i = 0; i < OPS; i++) total += weights[i];
    for (int i = 0; i < WORKERS; i++) begin(&workers[i]);
    for (long n = strtol(argv[3], NULL, 10), step = 0; step < n; step++) {
        int at = (int)pick((unsigned)total);
        enum op op = OPEN;
        while (at >= weights[op]) at -= weights[op++];
        struct command c = {.op = op, .fd = (int)pick(FDS), .map = (int)pick(MAPS), .other = (int)pick(FDS)};
        struct worker *w = &workers[pick(WORKERS)];
        c.pos = place();
        c.len = length();
        c.arg = op == COPY || op == FROM_MAP || op == TO_MAP ? place() : (long)pick(64);
        c.seed = pick(1 << 30);
        printf("%ld: %d %s fd %d map %d pos %ld len %ld", step, (int)(w - workers), op_names[op], c.fd, c.map, c.pos, c.len);
        if (op == KILL) {
            kill(w->pid, SIGKILL);
            gone(w);
            continue;
        }
        struct reply r;
        if (write(w->to, &c, sizeof c) != sizeof c) abort();
        if (read(w->from, &r, sizeof r) != sizeof r) {
            gone(w);
            continue;
        }
        printf("%s\n", r.text);
        /* The process before it in its place is not waited for: it may stay for a while. */
        w->pid = r.pid;
    }
    for (int i = 0; i < WORKERS; i++) close(workers[i].to);
    while (wait(NULL) > 0) {
    }
    for (int i = 0; i < NAMES; i++) {
        struct reply r = {.pid = 0};
        do_content(&r, names[i]);
        printf("%s:%s\n", names[i], r.text);
    }
    return 0;
}
