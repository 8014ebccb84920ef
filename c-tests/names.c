/* rename(2) with all flags, link(2), symlink(2), readlink(2), unlink(2). */
#include "check.h"
#include <sys/prctl.h>
#include <sys/syscall.h>

#define EXCHANGE 2
#define NOREPLACE 1
#define WHITEOUT 4

static int rename2(const char *from, const char *to, unsigned flags) {
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

CASE(rename_replaces) {
    put("a", "A");
    put("b", "B");
    struct stat a, b;
    OK(stat("a", &a));
    OK(rename("a", "b"));
    holds("b", "A");
    ERR(access("a", F_OK), ENOENT);
    OK(stat("b", &b));
    EQ(a.st_ino, b.st_ino);
}

CASE(rename_to_itself) {
    put("a", "A");
    OK(rename("a", "a"));
    holds("a", "A");
    OK(link("a", "b"));
    OK(rename("a", "b"));
    holds("a", "A");
    holds("b", "A");
    OK(rename("a", "./a"));
    holds("a", "A");
}

CASE(rename_directories) {
    OK(mkdir("d", 0755));
    put("d/f", "x");
    OK(mkdir("e", 0755));
    OK(rename("d", "e"));
    holds("e/f", "x");
    OK(mkdir("d", 0755));
    ERR(rename("d", "e"), ENOTEMPTY);
    ERR(rename("e", "e/sub"), EINVAL);
    OK(mkdir("e/sub", 0755));
    ERR(rename("e", "e/sub/x"), EINVAL);
    put("f", "");
    ERR(rename("f", "d"), EISDIR);
    ERR(rename("d", "f"), ENOTDIR);
    ERR(rename("none", "x"), ENOENT);
    ERR(rename("f", "none/x"), ENOENT);
    ERR(rename("e/sub", "e"), ENOTEMPTY);
    ERR(rename(".", "x"), EBUSY);
    ERR(rename("e/..", "x"), EBUSY);
}

CASE(rename_moves_dotdot) {
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    OK(mkdir("a/d", 0755));
    put("b/f", "in b");
    OK(rename("a/d", "b/d"));
    holds("b/d/../f", "in b");
}

CASE(rename_open_file) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    put("b", "old");
    int old = OK(open("b", O_RDONLY));
    OK(rename("a", "b"));
    EQ(write(fd, "new", 3), 3);
    holds("b", "new");
    char buf[8] = {0};
    EQ(read(old, buf, 8), 3);
    STR(buf, "old");
}

CASE(noreplace) {
    put("a", "A");
    put("b", "B");
    ERR(rename2("a", "b", NOREPLACE), EEXIST);
    OK(rename2("a", "c", NOREPLACE));
    holds("c", "A");
    ERR(rename2("c", "c", NOREPLACE), EEXIST);
}

CASE(exchange) {
    put("a", "A");
    OK(mkdir("d", 0755));
    put("d/f", "inner");
    OK(rename2("a", "d", EXCHANGE));
    holds("d", "A");
    holds("a/f", "inner");
    ERR(rename2("a", "none", EXCHANGE), ENOENT);
    put("x", "X");
    put("y", "Y");
    OK(rename2("x", "y", EXCHANGE));
    holds("x", "Y");
    holds("y", "X");
    ERR(rename2("a", "a/f", EXCHANGE), EINVAL);
    struct stat st;
    OK(stat("a", &st));
    EQ(S_ISDIR(st.st_mode), 1);
}

CASE(bad_flags) {
    put("a", "A");
    put("b", "B");
    ERR(rename2("a", "b", NOREPLACE | EXCHANGE), EINVAL);
    ERR(rename2("a", "b", WHITEOUT | EXCHANGE), EINVAL);
    ERR(rename2("a", "b", 64), EINVAL);
}

CASE(whiteout) {
    if (geteuid() != 0) SKIP("needs root");
    put("a", "A");
    OK(rename2("a", "b", WHITEOUT));
    holds("b", "A");
    struct stat st;
    OK(lstat("a", &st));
    EQ(S_ISCHR(st.st_mode), 1);
    EQ(st.st_rdev, 0);
}

CASE(hard_links) {
    put("a", "text");
    OK(link("a", "b"));
    struct stat a, b;
    OK(stat("a", &a));
    OK(stat("b", &b));
    EQ(a.st_ino, b.st_ino);
    EQ(a.st_nlink, 2);
    put("b", "changed");
    holds("a", "changed");
    OK(unlink("a"));
    OK(stat("b", &b));
    EQ(b.st_nlink, 1);
    holds("b", "changed");
    ERR(link("b", "b"), EEXIST);
    ERR(link("none", "c"), ENOENT);
    OK(mkdir("d", 0755));
    ERR(link("d", "e"), EPERM);
    OK(link("b", "d/b"));
    holds("d/b", "changed");
}

CASE(link_of_symlink) {
    put("f", "x");
    OK(symlink("f", "l"));
    OK(link("l", "m"));
    struct stat st;
    OK(lstat("m", &st));
    EQ(S_ISLNK(st.st_mode), 1);
    EQ(st.st_nlink, 2);
    OK(linkat(AT_FDCWD, "l", AT_FDCWD, "n", AT_SYMLINK_FOLLOW));
    OK(lstat("n", &st));
    EQ(S_ISREG(st.st_mode), 1);
}

CASE(readlink_sizes) {
    OK(symlink("0123456789", "l"));
    char buf[32];
    memset(buf, '#', sizeof buf);
    EQ(readlink("l", buf, 4), 4);
    EQ(buf[4], '#');
    EQ(readlink("l", buf, 32), 10);
    ERR(readlink("l", buf, 0), EINVAL);
    put("f", "");
    ERR(readlink("f", buf, 32), EINVAL);
    ERR(readlink("none", buf, 32), ENOENT);
    ERR(symlink("x", "l"), EEXIST);
    ERR(symlink("", "m"), ENOENT);
}

CASE(symlink_chains) {
    put("f", "x");
    char from[16] = "f", to[16];
    for (int i = 0; i < 39; i++) {
        snprintf(to, sizeof to, "l%d", i);
        OK(symlink(from, to));
        strcpy(from, to);
    }
    holds(from, "x");
    OK(symlink(from, "m"));
    holds("m", "x");
    OK(symlink("m", "n"));
    ERR(open("n", O_RDONLY), ELOOP);
    OK(symlink("loop", "loop"));
    ERR(open("loop", O_RDONLY), ELOOP);
    ERR(access("loop/x", F_OK), ELOOP);
}

CASE(symlink_to_directory) {
    OK(mkdir("d", 0755));
    put("d/f", "x");
    OK(symlink("d", "l"));
    holds("l/f", "x");
    ERR(rmdir("l"), ENOTDIR);
    ERR(unlink("l/"), ENOTDIR);
    OK(rename("l/f", "l/g"));
    holds("d/g", "x");
    OK(unlink("l"));
    holds("d/g", "x");
}

CASE(unlink_errors) {
    ERR(unlink("none"), ENOENT);
    put("f", "");
    ERR(unlink("f/x"), ENOTDIR);
    ERR(unlink("f/"), ENOTDIR);
    ERR(unlink(""), ENOENT);
    OK(unlink("f"));
    ERR(unlink("f"), ENOENT);
}

/* Whoever follows a link that is replaced comes to what the old or the new one leads to. */
CASE(a_replaced_link_always_leads_somewhere) {
    put("f", "");
    OK(mkdir("d", 0755));
    put("d/g", "");
    OK(symlink("f", "to-f"));
    OK(symlink("d", "to-d"));
    OK(symlink("to-f", "to-to-f"));
    pid_t pid = OK(fork());
    if (pid == 0) {
        /* Not left behind by a check that fails. */
        OK(prctl(PR_SET_PDEATHSIG, SIGKILL));
        for (;;) {
            OK(symlink("f", "new"));
            OK(rename("new", "to-f"));
            OK(symlink("d", "new"));
            OK(rename("new", "to-d"));
        }
    }
    struct stat st;
    for (int i = 0; i < 30000; i++) {
        OK(stat("to-f", &st));
        OK(stat("to-to-f", &st));
        OK(stat("to-d/g", &st));
        OK(access("to-d/g", R_OK));
    }
    OK(kill(pid, SIGKILL));
    OK(waitpid(pid, NULL, 0));
}

/* Permission comes before what the name is of. */
CASE(removing_without_permission) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/sub", 0755));
    put("d/f", "");
    OK(mkdir("s", 0777));
    OK(chmod("s", 01777));
    OK(mkdir("s/sub", 0755));
    put("s/f", "");
    become_nobody();
    ERR(unlink("d/sub"), EACCES);
    ERR(rmdir("d/f"), EACCES);
    ERR(rmdir("d/f/"), EACCES);
    ERR(unlink("d/sub/"), EISDIR);
    ERR(unlink("d/f/"), ENOTDIR);
    ERR(unlink("d/."), EISDIR);
    ERR(unlink("d/none"), ENOENT);
    ERR(unlink("s/sub"), EPERM);
    ERR(rmdir("s/f"), EPERM);
}

CASE(across_the_border) {
    put("f", "x");
    const char *out = "/tmp/pil4dfs-border-test";
    unlink(out);
    ERR(link("f", out), EXDEV);
    int code = rename("f", out);
    int why = errno;
    unlink(out);
    EQ(code, -1);
    EQ(why, EXDEV);
    ERR(rename("/etc/hostname", "x"), EXDEV);
    ERR(link("/etc/hostname", "x"), EXDEV);
    holds("f", "x");
}

CASE(renameat_descriptors) {
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    int a = OK(open("a", O_RDONLY | O_DIRECTORY)), b = OK(open("b", O_PATH | O_DIRECTORY));
    put("a/f", "x");
    OK(renameat(a, "f", b, "g"));
    holds("b/g", "x");
    OK(linkat(b, "g", a, "h", 0));
    holds("a/h", "x");
    OK(symlinkat("h", a, "s"));
    holds("a/s", "x");
    OK(unlinkat(a, "h", 0));
    char buf[8] = {0};
    EQ(readlinkat(a, "s", buf, 8), 1);
    STR(buf, "h");
}

CASE(ctime_of_links) {
    put("f", "");
    struct timespec old[2] = {{1, 0}, {1, 0}};
    OK(utimensat(AT_FDCWD, "f", old, 0));
    struct stat before, after;
    OK(stat("f", &before));
    usleep(20000);
    OK(link("f", "g"));
    OK(stat("f", &after));
    CHECK(after.st_ctim.tv_sec > before.st_ctim.tv_sec || after.st_ctim.tv_nsec != before.st_ctim.tv_nsec);
    EQ(after.st_mtim.tv_sec, 1);
}

CASE(rename_is_atomic_for_readers) {
    put("f", "one");
    pid_t pid = OK(fork());
    if (pid == 0) {
        for (int i = 0; i < 2000; i++) {
            put("tmp", i % 2 ? "one" : "two");
            OK(rename("tmp", "f"));
        }
        _exit(0);
    }
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        char buf[8] = {0};
        int fd = OK(open("f", O_RDONLY));
        EQ(read(fd, buf, 8), 3);
        CHECK(strcmp(buf, "one") == 0 || strcmp(buf, "two") == 0);
        OK(close(fd));
    }
    EQ(status, 0);
}
