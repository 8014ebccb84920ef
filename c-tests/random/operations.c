/* Random operations on a few names and descriptors: prints every operation with its result.
 *
 *   operations DIR SEED COUNT
 *
 * The same seed gives the same operations everywhere, so the output on two file systems must be equal. Some operations
 * run in a child process, which shares the descriptors and their offsets.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { FDS = 8, BUF = 70000 };

static uint64_t state;
static int fds[FDS];
static unsigned char buf[BUF];

static unsigned pick(unsigned limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 20) % limit;
}

static const char *name(void) {
    static const char *names[] = {"a",      "b",        "c",     "d",     "d/a",     "d/b",     "d/e",     "d/e/a", "d/e/b",   "l",
                                  "d/l",    "m",        "d/../b", "./a",  "d/e/../a", "none/x", "a/x",     "l/a",   "d/",      "b/",
                                  "d/e/.",  "d/e/..",   ".",     "d/e/f", "d/e/f/a", "c",       "l/../c",  "m/b"};
    return names[pick(sizeof names / sizeof *names)];
}

/* Mostly names that can be regular files. */
static const char *file_name(void) {
    static const char *names[] = {"a", "b", "c", "d/a", "d/b", "d/e/a", "m"};
    return pick(5) ? names[pick(sizeof names / sizeof *names)] : name();
}

static off_t place(void) {
    static const off_t places[] = {0, 1, 100, 4095, 4096, 4097, 10000, 65535, 65536, 131072, 200000, 1 << 20};
    return places[pick(sizeof places / sizeof *places)] + (off_t)pick(3);
}

static size_t length(void) {
    static const size_t lengths[] = {0, 1, 7, 100, 4095, 4096, 4097, 20000, 65536, BUF};
    return lengths[pick(sizeof lengths / sizeof *lengths)];
}

static unsigned long digest(const void *data, size_t len) {
    unsigned long h = 1469598103934665603UL;
    for (size_t i = 0; i < len; i++) h = (h ^ ((const unsigned char *)data)[i]) * 1099511628211UL;
    return h;
}

static void result(long long value) {
    if (value < 0) {
        printf(" = %s\n", strerrorname_np(errno));
    } else {
        printf(" = %lld\n", value);
    }
}

static void data(long long value) {
    if (value >= 0) printf(" digest %lx", digest(buf, (size_t)value));
    result(value);
}

static void show(const struct stat *st) {
    printf(" mode %o links %lu", st->st_mode, (unsigned long)st->st_nlink);
    if (!S_ISDIR(st->st_mode)) printf(" size %lld", (long long)st->st_size);
}

static void random_bytes(size_t len) {
    uint64_t seed = pick(1 << 30);
    for (size_t i = 0; i < len; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        buf[i] = (unsigned char)(seed >> 56);
    }
}

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(const char *path) {
    DIR *d = opendir(path);
    if (!d) {
        result(-1);
        return;
    }
    char *names[1000];
    int n = 0;
    for (struct dirent *e; n < 1000 && (e = readdir(d));) {
        char text[300];
        snprintf(text, sizeof text, "%s:%d", e->d_name, e->d_type);
        names[n++] = strdup(text);
    }
    closedir(d);
    qsort(names, (size_t)n, sizeof *names, compare);
    for (int i = 0; i < n; i++) {
        printf(" %s", names[i]);
        free(names[i]);
    }
    printf("\n");
}

static void open_operation(int slot, const char *path) {
    static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR};
    static const int extras[] = {O_TRUNC, O_APPEND, O_EXCL, O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC};
    int flags = modes[pick(5)];
    if (pick(3)) flags |= O_CREAT;
    for (int i = 0; i < 6; i++) {
        if (pick(6) == 0) flags |= extras[i];
    }
    if ((flags & O_DIRECTORY) && (flags & O_CREAT)) flags &= ~O_CREAT;
    mode_t mode = pick(2) ? 0644 : 0600;
    printf("open %s flags %o", path, (unsigned)flags);
    int fd = open(path, flags, mode);
    if (fd >= 0) {
        if (fds[slot] >= 0) close(fds[slot]);
        fds[slot] = fd;
    }
    result(fd < 0 ? -1 : 0);
}

static void data_operation(unsigned kind, int slot) {
    int fd = fds[slot], other = fds[pick(FDS)];
    size_t len = length();
    off_t at = place();
    struct stat st;
    switch (kind) {
    case 0:
        printf("read %d %zu", slot, len);
        data(read(fd, buf, len));
        break;
    case 1:
        random_bytes(len);
        printf("write %d %zu", slot, len);
        result(write(fd, buf, len));
        break;
    case 2:
        printf("pread %d %zu %lld", slot, len, (long long)at);
        data(pread(fd, buf, len, at));
        break;
    case 3:
        random_bytes(len);
        printf("pwrite %d %zu %lld", slot, len, (long long)at);
        result(pwrite(fd, buf, len, at));
        break;
    case 4: {
        int whence = (int)pick(3);
        off_t by = at - (whence ? 5000 : 0);
        if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
            /* Positions in directories are each file system's own. */
            whence = SEEK_SET;
            by = 0;
        }
        printf("lseek %d %lld %d", slot, (long long)by, whence);
        result(lseek(fd, by, whence));
        break;
    }
    case 5:
        printf("ftruncate %d %lld", slot, (long long)at);
        result(ftruncate(fd, at));
        break;
    case 6:
        printf("fstat %d", slot);
        if (fstat(fd, &st) == 0) {
            show(&st);
            result(0);
        } else {
            result(-1);
        }
        break;
    case 7: {
        int mode = pick(2) ? 3 : (int)pick(2);
        printf("fallocate %d mode %d %lld %zu", slot, mode, (long long)at, len);
        result(fallocate(fd, mode, at, (off_t)len));
        break;
    }
    case 8: {
        struct iovec v[3] = {{buf, len / 3}, {buf + len / 3, len / 3}, {buf + 2 * (len / 3), len - 2 * (len / 3)}};
        printf("preadv %d %zu %lld", slot, len, (long long)at);
        data(preadv(fd, v, 3, at));
        break;
    }
    case 9: {
        struct iovec v[2] = {{buf, len / 2}, {buf + len / 2, len - len / 2}};
        random_bytes(len);
        printf("writev %d %zu", slot, len);
        result(writev(fd, v, 2));
        break;
    }
    case 10: {
        loff_t from = at, to = place();
        printf("copy_file_range %d %lld %lld %zu", slot, (long long)from, (long long)to, len);
        ssize_t n = copy_file_range(fd, &from, other, &to, len, 0);
        result(n);
        break;
    }
    case 11: {
        off_t from = at;
        struct stat to;
        if (fstat(fd, &st) == 0 && fstat(other, &to) == 0 && st.st_ino == to.st_ino) {
            /* What an overlapping copy gives is nowhere defined. */
            printf("sendfile to itself\n");
            break;
        }
        printf("sendfile %d %lld %zu", slot, (long long)from, len);
        result(sendfile(other, fd, &from, len));
        break;
    }
    case 12: {
        printf("map %d", slot);
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > 4 << 20) {
            printf(" not\n");
            break;
        }
        int writable = (int)pick(2);
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            result(-1);
            break;
        }
        printf(" digest %lx", digest(p, (size_t)st.st_size));
        if (writable) {
            random_bytes(100);
            size_t where = pick((unsigned)st.st_size);
            memcpy((char *)p + where, buf, (size_t)st.st_size - where < 100 ? (size_t)st.st_size - where : 100);
        }
        munmap(p, (size_t)st.st_size);
        result(0);
        break;
    }
    case 13: {
        int to = (int)pick(FDS);
        printf("dup %d to %d", slot, to);
        int copy = dup(fd);
        if (copy >= 0) {
            if (fds[to] >= 0) close(fds[to]);
            fds[to] = copy;
        }
        result(copy < 0 ? -1 : 0);
        break;
    }
    case 14:
        printf("getfl %d", slot);
        result(fcntl(fd, F_GETFL));
        break;
    default:
        printf("flock %d", slot);
        result(flock(fd, (pick(2) ? LOCK_SH : LOCK_EX) | LOCK_NB));
        if (fd >= 0) flock(fd, LOCK_UN);
        break;
    }
}

static void name_operation(unsigned kind) {
    const char *path = pick(2) ? file_name() : name(), *other = name();
    struct stat st;
    char text[300];
    ssize_t n;
    switch (kind) {
    case 0:
        printf("mkdir %s", path);
        result(mkdir(path, 0755));
        break;
    case 1:
        printf("rmdir %s", path);
        result(rmdir(path));
        break;
    case 2:
    case 3:
        printf("unlink %s", path);
        result(unlink(path));
        break;
    case 4:
    case 5: {
        unsigned flags = pick(3) ? 0 : pick(4);
        printf("rename %s %s flags %u", path, other, flags);
        result(renameat2(AT_FDCWD, path, AT_FDCWD, other, flags));
        break;
    }
    case 6:
        printf("link %s %s", path, other);
        result(link(path, other));
        break;
    case 7: {
        const char *target = pick(2) ? other : "d";
        printf("symlink %s %s", target, path);
        result(symlink(target, path));
        break;
    }
    case 8:
        printf("readlink %s", path);
        n = readlink(path, text, sizeof text);
        if (n >= 0) printf(" %.*s", (int)n, text);
        result(n);
        break;
    case 9:
    case 10:
        printf("stat %s", path);
        if ((kind == 9 ? stat(path, &st) : lstat(path, &st)) == 0) {
            show(&st);
            result(0);
        } else {
            result(-1);
        }
        break;
    case 11:
        printf("list %s", path);
        list(path);
        break;
    case 12:
        printf("chmod %s", path);
        result(chmod(path, pick(2) ? 0755 : 0640));
        break;
    case 13: {
        off_t at = place();
        printf("truncate %s %lld", path, (long long)at);
        result(truncate(path, at));
        break;
    }
    case 14: {
        struct timespec t[2] = {{pick(100000), pick(1000)}, {pick(100000), pick(1000)}};
        printf("utimens %s", path);
        int code = utimensat(AT_FDCWD, path, t, pick(2) ? AT_SYMLINK_NOFOLLOW : 0);
        if (code == 0 && lstat(path, &st) == 0 && !S_ISLNK(st.st_mode)) {
            printf(" %lld.%ld", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        }
        result(code);
        break;
    }
    case 15: {
        size_t len = pick(60);
        random_bytes(len);
        printf("setxattr %s %zu", path, len);
        result(setxattr(path, pick(2) ? "user.one" : "user.two", buf, len, (int)pick(3)));
        break;
    }
    case 16:
        printf("getxattr %s", path);
        data(getxattr(path, pick(2) ? "user.one" : "user.two", buf, 100));
        break;
    case 17:
        printf("removexattr %s", path);
        result(removexattr(path, pick(2) ? "user.one" : "user.two"));
        break;
    default:
        printf("access %s", path);
        result(access(path, (int)pick(8)));
        break;
    }
}

static void step(int slot, unsigned kind) {
    if (kind < 4) {
        open_operation(slot, file_name());
    } else if (kind < 22) {
        data_operation((kind - 4) % 16, slot);
    } else {
        name_operation(pick(19));
    }
}

int main(int argc, char **argv) {
    if (argc < 4 || chdir(argv[1]) != 0) return 2;
    state = strtoull(argv[2], NULL, 10) * 0x9E3779B97F4A7C15u + 1;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    for (int i = 0; i < FDS; i++) fds[i] = -1;
    long count = atol(argv[3]);
    for (long i = 0; i < count; i++) {
        int slot = (int)pick(FDS);
        unsigned kind = pick(44), child = pick(50) == 0;
        printf("%ld: ", i);
        if (!child) {
            step(slot, kind);
            continue;
        }
        /* Descriptors opened in the child stay there; the random state goes on as if nothing had been drawn. */
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            step(slot, kind);
            fflush(stdout);
            _exit(0);
        }
        int status;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
            printf("child failed\n");
            return 1;
        }
    }
    list(".");
    printf("end\n");
    return 0;
}
