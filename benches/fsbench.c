/* File system benchmark: every row once, "ROW VALUE" lines on stdout; the caller repeats and takes medians.
 *
 *   fsbench DIR small|scale|exec|checkpoints [SCALE]
 *
 * Values are nanoseconds per operation, except rows ending in _mbs (MB per second), _rate (operations per second) and
 * exec_* (microseconds per exec). SCALE is the largest number of files of the rows that grow.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define NEED(e)                                                                             \
    do {                                                                                    \
        if (!(e)) {                                                                         \
            fprintf(stderr, "fsbench: line %d: %s: %s\n", __LINE__, #e, strerror(errno));   \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

static char base[PATH_MAX - 128];
static char *buf;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void row(const char *name, double value) {
    printf("%s %.1f\n", name, value);
    fflush(stdout);
}

static void name_of(char *path, const char *dir, long i) { snprintf(path, PATH_MAX, "%s/%s/file-%07ld", base, dir, i); }

static void make_dir(const char *dir) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", base, dir);
    NEED(mkdir(path, 0755) == 0);
}

static void remove_dir(const char *dir) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", base, dir);
    NEED(rmdir(path) == 0);
}

static double create_files(const char *dir, long from, long to) {
    char path[PATH_MAX];
    double start = now();
    for (long i = from; i < to; i++) {
        name_of(path, dir, i);
        int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
        NEED(fd >= 0);
        close(fd);
    }
    return now() - start;
}

static double unlink_files(const char *dir, long from, long to) {
    char path[PATH_MAX];
    double start = now();
    for (long i = from; i < to; i++) {
        name_of(path, dir, i);
        NEED(unlink(path) == 0);
    }
    return now() - start;
}

static uint64_t random_state = 88172645463325252u;
static uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static double stat_files(const char *dir, long count, long calls) {
    char path[PATH_MAX];
    struct stat st;
    double start = now();
    for (long i = 0; i < calls; i++) {
        name_of(path, dir, (long)(random_next() % (uint64_t)count));
        NEED(stat(path, &st) == 0);
    }
    return (now() - start) / (double)calls;
}

static void metadata(void) {
    enum { FILES = 10000, HOT = 100000 };
    make_dir("meta");
    row("create_close", create_files("meta", 0, FILES) / FILES);
    char path[PATH_MAX];
    struct stat st;
    name_of(path, "meta", 77);
    double start = now();
    for (int i = 0; i < HOT; i++) NEED(stat(path, &st) == 0);
    row("stat_hot", (now() - start) / HOT);
    start = now();
    for (int i = 0; i < HOT; i++) {
        int fd = open(path, O_RDONLY);
        NEED(fd >= 0);
        close(fd);
    }
    row("open_close", (now() - start) / HOT);
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s/meta", base);
    start = now();
    long entries = 0;
    for (int i = 0; i < 10; i++) {
        DIR *d = opendir(dir);
        NEED(d);
        while (readdir(d)) entries++;
        closedir(d);
    }
    NEED(entries == 10 * (FILES + 2));
    row("readdir_entry", (now() - start) / (double)entries);
    row("unlink", unlink_files("meta", 0, FILES) / FILES);
    remove_dir("meta");
}

static void data(void) {
    enum { BIG = 64 << 20, SMALL = 16 << 20, CALLS = 20000, MIB = 1 << 20 };
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/data", base);
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0644);
    NEED(fd >= 0);
    for (off_t at = 0; at < SMALL; at += MIB) NEED(pwrite(fd, buf, MIB, at) == MIB);
    double start = now();
    for (int i = 0; i < CALLS; i++) NEED(pread(fd, buf, 4096, (off_t)(random_next() % (SMALL / 4096)) * 4096) == 4096);
    row("read_4k", (now() - start) / CALLS);
    start = now();
    for (int i = 0; i < CALLS; i++) NEED(pwrite(fd, buf, 4096, (off_t)(random_next() % (SMALL / 4096)) * 4096) == 4096);
    row("write_4k", (now() - start) / CALLS);
    close(fd);
    NEED(unlink(path) == 0);
    /* The space of the first file is used again by the second. */
    for (int round = 0; round < 2; round++) {
        fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0644);
        NEED(fd >= 0);
        start = now();
        for (off_t at = 0; at < BIG; at += MIB) NEED(write(fd, buf, MIB) == MIB);
        double spent = now() - start;
        row(round ? "write_1m_mbs" : "write_1m_fresh_mbs", BIG / (spent / 1e3));
        if (round) break;
        close(fd);
        NEED(unlink(path) == 0);
    }
    start = now();
    for (int round = 0; round < 2; round++) {
        for (off_t at = 0; at < BIG; at += MIB) NEED(pread(fd, buf, MIB, at) == MIB);
    }
    row("read_1m_mbs", 2.0 * BIG / ((now() - start) / 1e3));
    close(fd);
    NEED(unlink(path) == 0);
}

static void foreign(void) {
    enum { CALLS = 300000 };
    int fd = open("/dev/null", O_RDWR);
    NEED(fd >= 0);
    double start = now();
    for (int i = 0; i < CALLS; i++) NEED(read(fd, buf, 1) == 0);
    row("foreign_read", (now() - start) / CALLS);
    start = now();
    for (int i = 0; i < CALLS; i++) NEED(write(fd, buf, 1) == 1);
    row("foreign_write", (now() - start) / CALLS);
    struct stat st;
    start = now();
    for (int i = 0; i < CALLS / 3; i++) NEED(stat("/usr/bin", &st) == 0);
    row("foreign_stat", (now() - start) / (CALLS / 3));
    close(fd);
}

/* Operations per second of `count` processes that create, close and unlink; all in one directory or each in its own. */
static double together(int count, int shared) {
    enum { FILES = 4000 };
    struct { volatile int ready, go; volatile double first, last; } *board =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED(board != MAP_FAILED);
    char dir[64];
    for (int p = 0; p < count; p++) {
        snprintf(dir, sizeof dir, "own-%d", p);
        if (!shared) make_dir(dir);
    }
    if (shared) make_dir("shared");
    pid_t pids[16];
    for (int p = 0; p < count; p++) {
        pids[p] = fork();
        NEED(pids[p] >= 0);
        if (pids[p] == 0) {
            snprintf(dir, sizeof dir, shared ? "shared" : "own-%d", p);
            create_files(dir, (long)p * FILES, (long)p * FILES + 1);
            __sync_fetch_and_add(&board->ready, 1);
            while (!board->go) usleep(50);
            create_files(dir, (long)p * FILES + 1, (long)(p + 1) * FILES);
            if (!shared) unlink_files(dir, (long)p * FILES, (long)(p + 1) * FILES);
            _exit(0);
        }
    }
    while (board->ready < count) usleep(50);
    double start = now();
    board->go = 1;
    for (int p = 0; p < count; p++) {
        int status;
        NEED(waitpid(pids[p], &status, 0) == pids[p] && status == 0);
    }
    double spent = now() - start;
    for (int p = 0; p < count; p++) {
        snprintf(dir, sizeof dir, "own-%d", p);
        if (!shared) remove_dir(dir);
    }
    if (shared) {
        unlink_files("shared", 0, (long)count * FILES);
        remove_dir("shared");
    }
    munmap(board, 4096);
    return (double)count * FILES / (spent / 1e9);
}

/* What it takes to hand a cache line to another processor: what several processes share costs that much. */
static double line_transfer(void) {
    enum { TIMES = 20000 };
    volatile int *turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED(turn != MAP_FAILED);
    pid_t pid = fork();
    NEED(pid >= 0);
    double start = 0;
    for (int i = 0; i < TIMES; i++) {
        /* The first rounds are for the other to get there. */
        if (i == TIMES / 10) start = now();
        while (*turn != (pid == 0)) continue;
        __atomic_store_n(turn, pid != 0, __ATOMIC_RELEASE);
    }
    double spent = now() - start;
    if (pid == 0) _exit(0);
    int status;
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    munmap((void *)turn, 4096);
    return spent / (TIMES - TIMES / 10) / 2;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Each takes some ten milliseconds, so they take turns, and the median of each counts; less often where they take
 * seconds. */
static void processes(void) {
    enum { TURNS = 5, ROWS = 5 };
    const struct { const char *name; int count, shared; } rows[ROWS] = {
        {"own_dirs_1_rate", 1, 0}, {"own_dirs_2_rate", 2, 0}, {"shared_dir_1_rate", 1, 1},
        {"shared_dir_2_rate", 2, 1}, {"shared_dir_4_rate", 4, 1},
    };
    double rates[ROWS][TURNS], transfers[TURNS], start = now();
    int turns = 0;
    while (turns < TURNS && now() - start < 2e9) {
        transfers[turns] = line_transfer();
        for (int i = 0; i < ROWS; i++) rates[i][turns] = together(rows[i].count, rows[i].shared);
        turns++;
    }
    for (int i = 0; i < ROWS; i++) {
        qsort(rates[i], (size_t)turns, sizeof rates[i][0], by_size);
        row(rows[i].name, rates[i][turns / 2]);
    }
    qsort(transfers, (size_t)turns, sizeof *transfers, by_size);
    row("line_transfer", transfers[turns / 2]);
}

static double spawned(char **argv, int times) {
    double start = now();
    for (int i = 0; i < times; i++) {
        pid_t pid;
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
        NEED(posix_spawn(&pid, argv[0], &actions, NULL, argv, environ) == 0);
        int status;
        NEED(waitpid(pid, &status, 0) == pid && status == 0);
        posix_spawn_file_actions_destroy(&actions);
    }
    return (now() - start) / 1e3 / times;
}

static void executions(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/small", base);
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0644);
    NEED(fd >= 0 && write(fd, "text\n", 5) == 5);
    close(fd);
    char *untouched[] = {"/bin/true", NULL}, *used[] = {"/bin/cat", path, NULL};
    spawned(used, 3);
    row("exec_untouched", spawned(untouched, 60));
    row("exec_used", spawned(used, 60));
    NEED(unlink(path) == 0);
}

/* The rows of directories with fewer than 1000 entries: so many of them that they have 1000 in all. */
static void small_directories(long size) {
    char dir[32], label[64], path[PATH_MAX];
    struct stat st;
    long dirs = 1000 / size;
    double spent = 0;
    for (long d = 0; d < dirs; d++) {
        snprintf(dir, sizeof dir, "s%04ld", d);
        make_dir(dir);
        spent += create_files(dir, 0, size);
    }
    snprintf(label, sizeof label, "entries_%ld_create", size);
    row(label, spent / (double)(dirs * size));
    double start = now();
    for (int i = 0; i < 20000; i++) {
        snprintf(dir, sizeof dir, "s%04ld", (long)(random_next() % (uint64_t)dirs));
        name_of(path, dir, (long)(random_next() % (uint64_t)size));
        NEED(stat(path, &st) == 0);
    }
    snprintf(label, sizeof label, "entries_%ld_stat", size);
    row(label, (now() - start) / 20000);
    for (long d = 0; d < dirs; d++) {
        snprintf(dir, sizeof dir, "s%04ld", d);
        unlink_files(dir, 0, size);
        remove_dir(dir);
    }
}

/* Costs as the number of files, and of entries in one directory, grows by tens. */
static void scale(long largest) {
    char dir[32], label[64];
    long files = 0;
    for (long size = 1; size < 1000; size *= 10) small_directories(size);
    make_dir("grow");
    for (long size = 1000; size <= largest; size *= 10) {
        double spent = create_files("grow", files, size);
        snprintf(label, sizeof label, "entries_%ld_create", size);
        row(label, spent / (double)(size - files));
        snprintf(label, sizeof label, "entries_%ld_stat", size);
        row(label, stat_files("grow", size, 20000));
        files = size;
    }
    double spent = unlink_files("grow", 0, files);
    snprintf(label, sizeof label, "entries_%ld_unlink", files);
    row(label, spent / (double)files);
    remove_dir("grow");
    long dirs = 0;
    for (long size = 1000; size <= largest; size *= 10) {
        long more = size / 1000 - dirs;
        spent = 0;
        for (long d = dirs; d < dirs + more; d++) {
            snprintf(dir, sizeof dir, "d%04ld", d);
            make_dir(dir);
            spent += create_files(dir, 0, 1000);
        }
        snprintf(label, sizeof label, "files_%ld_create", size);
        row(label, spent / (double)(more * 1000));
        dirs += more;
        double start = now();
        struct stat st;
        char path[PATH_MAX];
        for (int i = 0; i < 20000; i++) {
            snprintf(dir, sizeof dir, "d%04ld", (long)(random_next() % (uint64_t)dirs));
            name_of(path, dir, (long)(random_next() % 1000));
            NEED(stat(path, &st) == 0);
        }
        snprintf(label, sizeof label, "files_%ld_stat", size);
        row(label, (now() - start) / 20000);
    }
    for (long d = 0; d < dirs; d++) {
        snprintf(dir, sizeof dir, "d%04ld", d);
        unlink_files(dir, 0, 1000);
        remove_dir(dir);
    }
}

/* So many files that what is written about them goes round several times: the rate over all, that of the median
 * thousand, and the longest single operation. */
static void checkpoints(void) {
    enum { SLICES = 600, FILES = 1000 };
    static double spent[SLICES];
    char path[PATH_MAX], dir[32];
    double all = 0, worst = 0;
    for (int s = 0; s < SLICES; s++) {
        snprintf(dir, sizeof dir, "c%03d", s);
        make_dir(dir);
        for (long i = 0; i < FILES; i++) {
            name_of(path, dir, i);
            double start = now();
            int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
            NEED(fd >= 0);
            close(fd);
            double one = now() - start;
            spent[s] += one;
            if (one > worst) worst = one;
        }
        all += spent[s];
    }
    for (int s = 0; s < SLICES; s++) {
        snprintf(dir, sizeof dir, "c%03d", s);
        unlink_files(dir, 0, FILES);
        remove_dir(dir);
    }
    qsort(spent, SLICES, sizeof *spent, by_size);
    row("create_all_rate", SLICES * FILES / (all / 1e9));
    row("create_median_rate", FILES / (spent[SLICES / 2] / 1e9));
    row("create_worst", worst);
}

int main(int argc, char **argv) {
    NEED(argc >= 3);
    snprintf(base, sizeof base, "%s/fsbench-%d", argv[1], getpid());
    NEED(mkdir(base, 0755) == 0);
    NEED((buf = malloc(1 << 20)));
    memset(buf, 'b', 1 << 20);
    if (strcmp(argv[2], "small") == 0) {
        metadata();
        data();
        foreign();
        processes();
    } else if (strcmp(argv[2], "exec") == 0) {
        executions();
    } else if (strcmp(argv[2], "checkpoints") == 0) {
        checkpoints();
    } else {
        scale(argc > 3 ? atol(argv[3]) : 100000);
    }
    NEED(rmdir(base) == 0);
    return 0;
}
