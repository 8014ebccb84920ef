/* A tiny test frame: CASE(name) { ... } registers a case, CHECK... end it when an expectation fails.
 *
 * A program takes the directory to work in as argv[1] and, if given, the names of the cases to run. Every case runs in
 * a child process, in a fresh directory of its own which is also its current directory, under an alarm. One line per
 * case is printed: "ok NAME", "not ok NAME: why" or "ok NAME # skip why"; the exit code is 1 when a case failed.
 */
#ifndef CHECK_H
#define CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CHECK_SECONDS
#define CHECK_SECONDS 30
#endif

struct check_case {
    const char *name;
    void (*run)(void);
};

static struct check_case check_cases[256];
static int check_count;
static const char *check_current = "?";
static char check_dir[PATH_MAX];
static char check_self[PATH_MAX];

#define CASE(n)                                                          \
    static void n(void);                                                 \
    __attribute__((constructor)) static void check_register_##n(void) {  \
        check_cases[check_count++] = (struct check_case){#n, n};         \
    }                                                                    \
    static void n(void)

__attribute__((unused, noreturn, format(printf, 1, 2))) static void check_end(const char *fmt, ...) {
    char line[1024];
    int at = snprintf(line, sizeof line, "not ok %s: ", check_current);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line + at, sizeof line - at - 2, fmt, ap);
    va_end(ap);
    strcat(line, "\n");
    if (write(1, line, strlen(line)) < 0) {
        _exit(3);
    }
    _exit(1);
}

__attribute__((unused, noreturn)) static void check_skip(const char *why) {
    char line[512];
    snprintf(line, sizeof line, "ok %s # skip %s\n", check_current, why);
    if (write(1, line, strlen(line)) < 0) {
        _exit(3);
    }
    _exit(77);
}

#define SKIP(why) check_skip(why)
#define FAIL(...) check_end(__VA_ARGS__)

/* The expression is true. */
#define CHECK(e)                                                                                  \
    do {                                                                                          \
        if (!(e)) FAIL("line %d: %s (errno %s)", __LINE__, #e, strerrorname_np(errno));           \
    } while (0)

/* The call does not return a negative value; gives its value. */
#define OK(e)                                                                                     \
    ({                                                                                            \
        long long check_value = (long long)(e);                                                   \
        if (check_value < 0) FAIL("line %d: %s: %s", __LINE__, #e, strerrorname_np(errno));       \
        check_value;                                                                              \
    })

/* The call fails with this errno. */
#define ERR(e, want)                                                                              \
    do {                                                                                          \
        errno = 0;                                                                                \
        long long check_value = (long long)(e);                                                   \
        int check_errno = errno;                                                                  \
        if (check_value >= 0)                                                                     \
            FAIL("line %d: %s gave %lld, expected %s", __LINE__, #e, check_value, #want);         \
        if (check_errno != (want))                                                                \
            FAIL("line %d: %s: %s, expected %s", __LINE__, #e, strerrorname_np(check_errno),      \
                 #want);                                                                          \
    } while (0)

/* Two integers are equal. */
#define EQ(a, b)                                                                                  \
    do {                                                                                          \
        long long check_a = (long long)(a), check_b = (long long)(b);                             \
        if (check_a != check_b)                                                                   \
            FAIL("line %d: %s is %lld, expected %s = %lld (errno %s)", __LINE__, #a, check_a, #b, \
                 check_b, strerrorname_np(errno));                                                \
    } while (0)

/* Two strings are equal. */
#define STR(a, b)                                                                                 \
    do {                                                                                          \
        const char *check_a = (a), *check_b = (b);                                                \
        if (!check_a || strcmp(check_a, check_b) != 0)                                            \
            FAIL("line %d: %s is \"%s\", expected \"%s\"", __LINE__, #a, check_a, check_b);       \
    } while (0)

/* Two byte ranges are equal. */
#define MEM(a, b, n)                                                                              \
    do {                                                                                          \
        if (memcmp((a), (b), (n)) != 0) FAIL("line %d: %s differs from %s", __LINE__, #a, #b);    \
    } while (0)

/* Makes a file with these bytes. */
__attribute__((unused)) static void put(const char *path, const char *text) {
    int fd = OK(open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644));
    EQ(write(fd, text, strlen(text)), strlen(text));
    OK(close(fd));
}

/* The file has exactly these bytes. */
__attribute__((unused)) static void holds(const char *path, const char *text) {
    char buf[65536];
    int fd = OK(open(path, O_RDONLY));
    ssize_t got = OK(read(fd, buf, sizeof buf - 1));
    buf[got] = 0;
    OK(close(fd));
    STR(buf, text);
}

__attribute__((unused)) static off_t size_of(const char *path) {
    struct stat st;
    OK(lstat(path, &st));
    return st.st_size;
}

/* Waits for a child and gives its exit code; a signal is a failure. */
__attribute__((unused)) static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) FAIL("waitpid: %s", strerrorname_np(errno));
    }
    if (!WIFEXITED(status)) FAIL("child ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* Runs the block in a child and fails when the child does. */
#define IN_CHILD(block)                              \
    do {                                             \
        pid_t check_pid = OK(fork());                \
        if (check_pid == 0) {                        \
            block;                                   \
            _exit(0);                                \
        }                                            \
        if (wait_for(check_pid) != 0) _exit(1);      \
    } while (0)

/* Bytes that depend on the position and a seed. */
__attribute__((unused)) static void fill(void *buf, size_t len, off_t at, unsigned seed) {
    unsigned char *p = buf;
    for (size_t i = 0; i < len; i++) {
        uint64_t x = ((uint64_t)(at + (off_t)i) + seed) * 0x9E3779B97F4A7C15u;
        p[i] = (unsigned char)(x >> 56);
    }
}

__attribute__((unused)) static void filled(const void *buf, size_t len, off_t at, unsigned seed) {
    const unsigned char *p = buf;
    for (size_t i = 0; i < len; i++) {
        uint64_t x = ((uint64_t)(at + (off_t)i) + seed) * 0x9E3779B97F4A7C15u;
        if (p[i] != (unsigned char)(x >> 56))
            FAIL("byte %lld is %u, expected %u", (long long)at + (long long)i, p[i],
                 (unsigned)(unsigned char)(x >> 56));
    }
}

/* Goes on as nobody; skips the case when the program does not run as root. */
__attribute__((unused)) static void become_nobody(void) {
    if (geteuid() != 0) SKIP("needs root");
    gid_t none = 65534;
    OK(chmod(".", 0777));
    if (syscall(116, 1, &none) != 0 || setresgid(65534, 65534, 65534) != 0 ||
        setresuid(65534, 65534, 65534) != 0)
        FAIL("cannot become nobody: %s", strerrorname_np(errno));
}

static int check_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st;
    (void)ftw;
    (void)(flag == FTW_DP || flag == FTW_D ? rmdir(path) : unlink(path));
    return 0;
}

static int check_run(const struct check_case *c, const char *program) {
    char dir[PATH_MAX + 300], name[300];
    snprintf(name, sizeof name, "%s/%s", program, c->name);
    snprintf(dir, sizeof dir, "%s/%s.%s", check_dir, program, c->name);
    check_current = name;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGPIPE, SIG_DFL);
        umask(022);
        alarm(CHECK_SECONDS);
        if (mkdir(dir, 0755) != 0 || chdir(dir) != 0)
            check_end("cannot make %s: %s", dir, strerrorname_np(errno));
        c->run();
        _exit(0);
    }
    int status = 0;
    if (pid < 0) check_end("fork: %s", strerrorname_np(errno));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    nftw(dir, check_remove, 16, FTW_DEPTH | FTW_PHYS);
    if (WIFSIGNALED(status)) {
        printf("not ok %s: signal %d\n", name, WTERMSIG(status));
        return 1;
    }
    if (WEXITSTATUS(status) == 0) {
        printf("ok %s\n", name);
        return 0;
    }
    return WEXITSTATUS(status) == 77 ? 0 : 1;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 2 || argv[1][0] != '/') {
        fprintf(stderr, "usage: %s /DIRECTORY [CASE...]\n", argv[0]);
        return 2;
    }
    snprintf(check_dir, sizeof check_dir, "%s", argv[1]);
    if (!realpath("/proc/self/exe", check_self)) {
        snprintf(check_self, sizeof check_self, "%s", argv[0]);
    }
    const char *slash = strrchr(argv[0], '/');
    int failed = 0;
    for (int i = 0; i < check_count; i++) {
        int wanted = argc == 2;
        for (int a = 2; a < argc; a++) {
            wanted |= strcmp(argv[a], check_cases[i].name) == 0;
        }
        if (wanted) {
            failed |= check_run(&check_cases[i], slash ? slash + 1 : argv[0]);
        }
    }
    return failed;
}
#endif
