/* chdir(2), fchdir(2), getcwd(3), realpath(3), directory descriptors, /proc/self. */
#include "check.h"
#include <sys/syscall.h>

CASE(getcwd_follows_chdir) {
    char base[PATH_MAX], now[PATH_MAX], want[PATH_MAX + 8];
    CHECK(getcwd(base, sizeof base));
    OK(mkdir("d", 0755));
    OK(mkdir("d/e", 0755));
    OK(chdir("d/e"));
    snprintf(want, sizeof want, "%s/d/e", base);
    CHECK(getcwd(now, sizeof now));
    STR(now, want);
    OK(chdir(".."));
    snprintf(want, sizeof want, "%s/d", base);
    CHECK(getcwd(now, sizeof now));
    STR(now, want);
    OK(chdir("./e/.././e/"));
    CHECK(getcwd(now, sizeof now));
    snprintf(want, sizeof want, "%s/d/e", base);
    STR(now, want);
    char *p = get_current_dir_name();
    STR(p, want);
    char small[4];
    errno = 0;
    CHECK(getcwd(small, sizeof small) == NULL);
    EQ(errno, ERANGE);
}

CASE(fchdir_call) {
    OK(mkdir("d", 0755));
    put("d/f", "x");
    int here = OK(open(".", O_RDONLY | O_DIRECTORY)), d = OK(open("d", O_PATH | O_DIRECTORY));
    OK(fchdir(d));
    holds("f", "x");
    OK(fchdir(here));
    holds("d/f", "x");
    int file = OK(open("d/f", O_RDONLY));
    ERR(fchdir(file), ENOTDIR);
    ERR(chdir("d/f"), ENOTDIR);
    ERR(chdir("none"), ENOENT);
    ERR(fchdir(-1), EBADF);
}

CASE(through_symlink) {
    char base[PATH_MAX], now[PATH_MAX], want[PATH_MAX + 8];
    CHECK(getcwd(base, sizeof base));
    OK(mkdir("d", 0755));
    OK(symlink("d", "l"));
    OK(chdir("l"));
    CHECK(getcwd(now, sizeof now));
    snprintf(want, sizeof want, "%s/d", base);
    STR(now, want);
}

CASE(out_and_back) {
    char base[PATH_MAX], now[PATH_MAX];
    CHECK(getcwd(base, sizeof base));
    put("f", "inside");
    OK(chdir("/"));
    CHECK(getcwd(now, sizeof now));
    STR(now, "/");
    OK(access("etc/passwd", F_OK));
    ERR(access("f", F_OK), ENOENT);
    OK(chdir(base));
    holds("f", "inside");
    OK(chdir("/usr"));
    OK(chdir(base));
    OK(access("f", F_OK));
}

CASE(after_rename_of_parent) {
    OK(mkdir("a", 0755));
    OK(mkdir("a/b", 0755));
    OK(chdir("a/b"));
    OK(rename("../../a", "../../c"));
    put("f", "moved");
    holds("../../c/b/f", "moved");
    char now[PATH_MAX];
    CHECK(getcwd(now, sizeof now));
    CHECK(strlen(now) > 4);
    STR(now + strlen(now) - 4, "/c/b");
}

CASE(removed_cwd) {
    OK(mkdir("d", 0755));
    OK(chdir("d"));
    OK(rmdir("../d"));
    char now[PATH_MAX];
    errno = 0;
    CHECK(syscall(SYS_getcwd, now, sizeof now) < 0);
    EQ(errno, ENOENT);
    ERR(open("f", O_CREAT | O_WRONLY, 0644), ENOENT);
}

CASE(realpath_call) {
    char base[PATH_MAX], want[PATH_MAX + 16];
    CHECK(getcwd(base, sizeof base));
    OK(mkdir("d", 0755));
    put("d/f", "");
    OK(symlink("d", "l"));
    OK(symlink("../l/f", "d/m"));
    snprintf(want, sizeof want, "%s/d/f", base);
    char *p = realpath("l/./m", NULL);
    STR(p, want);
    p = realpath("./d/../l/../l/f", NULL);
    STR(p, want);
    errno = 0;
    CHECK(realpath("none/x", NULL) == NULL);
    EQ(errno, ENOENT);
}

CASE(not_executable_directory) {
    OK(mkdir("d", 0755));
    OK(chmod("d", 0600));
    become_nobody();
    ERR(chdir("d"), EACCES);
}

CASE(proc_self_cwd) {
    char base[PATH_MAX], link[PATH_MAX];
    CHECK(getcwd(base, sizeof base));
    put("f", "x");
    ssize_t n = OK(readlink("/proc/self/cwd", link, sizeof link - 1));
    link[n] = 0;
    STR(link, base);
    holds("/proc/self/cwd/f", "x");
}

CASE(proc_self_fd) {
    char base[PATH_MAX], name[64], link[PATH_MAX], want[PATH_MAX + 8];
    CHECK(getcwd(base, sizeof base));
    put("f", "hello");
    int fd = OK(open("f", O_RDONLY));
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    snprintf(want, sizeof want, "%s/f", base);
    ssize_t n = OK(readlink(name, link, sizeof link - 1));
    link[n] = 0;
    STR(link, want);
    struct stat a, b;
    OK(stat(name, &a));
    OK(fstat(fd, &b));
    EQ(a.st_ino, b.st_ino);
    EQ(a.st_size, 5);
    char c;
    EQ(read(fd, &c, 1), 1);
    int again = OK(open(name, O_RDWR));
    EQ(read(again, &c, 1), 1);
    EQ(c, 'h');
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    again = OK(open(name, O_RDONLY));
    EQ(read(again, &c, 1), 1);
    snprintf(name, sizeof name, "/proc/%d/fd/%d", getpid(), fd);
    OK(close(OK(open(name, O_RDONLY))));
}

CASE(dev_stdin) {
    put("f", "stdin");
    int fd = OK(open("f", O_RDONLY));
    OK(dup2(fd, 0));
    holds("/dev/stdin", "stdin");
}

CASE(deleted_in_proc) {
    char name[64], link[PATH_MAX];
    put("f", "x");
    int fd = OK(open("f", O_RDONLY));
    OK(unlink("f"));
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = OK(readlink(name, link, sizeof link - 1));
    link[n] = 0;
    CHECK(strstr(link, " (deleted)"));
    char c;
    int again = OK(open(name, O_RDONLY));
    EQ(read(again, &c, 1), 1);
}

CASE(ancestor_descriptors) {
    char base[PATH_MAX];
    CHECK(getcwd(base, sizeof base));
    put("f", "x");
    int root = OK(open("/", O_PATH | O_DIRECTORY));
    struct stat a, b;
    OK(stat("f", &a));
    char rest[PATH_MAX + 4];
    snprintf(rest, sizeof rest, "%s/f", base + 1);
    OK(fstatat(root, rest, &b, 0));
    EQ(a.st_ino, b.st_ino);
    OK(chdir("/"));
    OK(stat(rest, &b));
    EQ(a.st_ino, b.st_ino);
    char *part = strdup(base + 1), *save = NULL;
    int dir = root;
    for (char *p = strtok_r(part, "/", &save); p; p = strtok_r(NULL, "/", &save)) {
        dir = OK(openat(dir, p, O_PATH | O_DIRECTORY));
    }
    OK(fstatat(dir, "f", &b, 0));
    EQ(a.st_ino, b.st_ino);
}

CASE(dotdot_above_everything) {
    char up[PATH_MAX] = "";
    for (int i = 0; i < 40; i++) strcat(up, "../");
    strcat(up, "etc/passwd");
    OK(access(up, R_OK));
}

CASE(chdir_in_thread_process_is_private) {
    OK(mkdir("d", 0755));
    IN_CHILD({
        OK(chdir("d"));
        put("f", "x");
    });
    OK(access("d/f", F_OK));
    ERR(access("f", F_OK), ENOENT);
}

CASE(deeper_than_any_path) {
    char base[PATH_MAX], name[201], now[3 * PATH_MAX];
    CHECK(getcwd(base, sizeof base));
    memset(name, 'n', 200);
    name[200] = 0;
    for (int i = 0; i < 30; i++) {
        OK(mkdir(name, 0755));
        OK(chdir(name));
    }
    put("f", "deep");
    ERR(syscall(SYS_getcwd, now, sizeof now), ENAMETOOLONG);
    ERR(syscall(SYS_getcwd, now, 8L), ENAMETOOLONG);
    ERR(readlink("/proc/self/cwd", now, sizeof now), ENAMETOOLONG);
    int fd = OK(open("f", O_RDONLY));
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ERR(readlink(link, now, sizeof now), ENAMETOOLONG);
    holds(link, "deep");
}

CASE(shown_after_removal) {
    char base[PATH_MAX], want[PATH_MAX + 32], link[64], now[PATH_MAX];
    CHECK(getcwd(base, sizeof base));
    put("f", "x");
    int fd = OK(open("f", O_RDONLY));
    OK(unlink("f"));
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int len = OK(readlink(link, now, sizeof now - 1));
    now[len] = 0;
    snprintf(want, sizeof want, "%s/f (deleted)", base);
    STR(now, want);
}
