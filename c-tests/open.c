/* open(2), openat(2), openat2(2), creat(2), close(2): flags, errors, descriptor numbers. */
#include "check.h"
#include <linux/openat2.h>
#include <sys/syscall.h>

CASE(create_and_reopen) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0640));
    EQ(write(fd, "abc", 3), 3);
    OK(close(fd));
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_size, 3);
    EQ(st.st_mode & 07777, 0640);
    EQ(S_ISREG(st.st_mode), 1);
    EQ(st.st_nlink, 1);
    holds("f", "abc");
}

CASE(missing) {
    ERR(open("f", O_RDONLY), ENOENT);
    ERR(open("d/f", O_CREAT | O_WRONLY, 0644), ENOENT);
    ERR(open("", O_RDONLY), ENOENT);
}

CASE(exclusive) {
    OK(open("f", O_CREAT | O_EXCL | O_WRONLY, 0644));
    ERR(open("f", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
    OK(symlink("nowhere", "l"));
    ERR(open("l", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
    OK(mkdir("d", 0755));
    ERR(open("d", O_CREAT | O_EXCL | O_RDONLY, 0644), EEXIST);
}

CASE(create_through_dangling_symlink) {
    OK(symlink("target", "l"));
    int fd = OK(open("l", O_CREAT | O_WRONLY, 0644));
    EQ(write(fd, "x", 1), 1);
    OK(close(fd));
    holds("target", "x");
}

CASE(truncate_on_open) {
    put("f", "long text");
    int fd = OK(open("f", O_WRONLY | O_TRUNC));
    EQ(size_of("f"), 0);
    OK(close(fd));
}

CASE(directory_flags) {
    OK(mkdir("d", 0755));
    put("f", "x");
    ERR(open("d", O_WRONLY), EISDIR);
    ERR(open("d", O_RDWR), EISDIR);
    ERR(open("d", O_RDONLY | O_CREAT, 0644), EISDIR);
    ERR(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
    ERR(open("f/x", O_RDONLY), ENOTDIR);
    ERR(open("f/", O_RDONLY), ENOTDIR);
    int fd = OK(open("d", O_RDONLY | O_DIRECTORY));
    char c;
    ERR(read(fd, &c, 1), EISDIR);
    ERR(write(fd, &c, 1), EBADF);
}

CASE(nofollow) {
    put("f", "x");
    OK(symlink("f", "l"));
    ERR(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
    int fd = OK(open("l", O_PATH | O_NOFOLLOW));
    struct stat st;
    OK(fstat(fd, &st));
    EQ(S_ISLNK(st.st_mode), 1);
    char text[16] = {0};
    EQ(readlinkat(fd, "", text, sizeof text), 1);
    STR(text, "f");
}

CASE(access_mode) {
    put("f", "abc");
    char c;
    int rd = OK(open("f", O_RDONLY));
    ERR(write(rd, "x", 1), EBADF);
    int wr = OK(open("f", O_WRONLY));
    ERR(read(wr, &c, 1), EBADF);
    ERR(ftruncate(rd, 0), EINVAL);
    EQ(fcntl(rd, F_GETFL) & O_ACCMODE, O_RDONLY);
    EQ(fcntl(wr, F_GETFL) & O_ACCMODE, O_WRONLY);
}

CASE(lowest_number) {
    put("f", "abc");
    int a = OK(open("f", O_RDONLY));
    int b = OK(open("f", O_RDONLY));
    EQ(b, a + 1);
    OK(close(a));
    EQ(open("f", O_RDONLY), a);
    OK(close(0));
    EQ(open("f", O_RDONLY), 0);
    char c;
    EQ(read(0, &c, 1), 1);
    EQ(c, 'a');
}

CASE(closed_descriptor) {
    put("f", "abc");
    int fd = OK(open("f", O_RDWR));
    OK(close(fd));
    char c;
    struct stat st;
    ERR(close(fd), EBADF);
    ERR(read(fd, &c, 1), EBADF);
    ERR(write(fd, "x", 1), EBADF);
    ERR(fstat(fd, &st), EBADF);
    ERR(lseek(fd, 0, SEEK_SET), EBADF);
    ERR(openat(fd, "x", O_RDONLY), EBADF);
}

CASE(openat_relative) {
    OK(mkdir("d", 0755));
    int dir = OK(open("d", O_RDONLY | O_DIRECTORY));
    int fd = OK(openat(dir, "f", O_CREAT | O_WRONLY, 0644));
    EQ(write(fd, "hi", 2), 2);
    OK(close(fd));
    holds("d/f", "hi");
    fd = OK(openat(dir, "../top", O_CREAT | O_WRONLY, 0644));
    OK(close(fd));
    EQ(size_of("top"), 0);
    put("plain", "");
    int file = OK(open("plain", O_RDONLY));
    ERR(openat(file, "x", O_RDONLY), ENOTDIR);
}

CASE(path_descriptor) {
    put("f", "abc");
    int fd = OK(open("f", O_PATH));
    char c;
    ERR(read(fd, &c, 1), EBADF);
    ERR(fchmod(fd, 0600), EBADF);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_size, 3);
    OK(mkdir("d", 0755));
    put("d/g", "inner");
    int dir = OK(open("d", O_PATH | O_DIRECTORY));
    int g = OK(openat(dir, "g", O_RDONLY));
    char text[8] = {0};
    EQ(read(g, text, 8), 5);
    STR(text, "inner");
}

CASE(umask_applies) {
    umask(027);
    OK(close(OK(open("f", O_CREAT | O_WRONLY, 0666))));
    OK(mkdir("d", 0777));
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_mode & 0777, 0640);
    OK(stat("d", &st));
    EQ(st.st_mode & 0777, 0750);
}

CASE(read_only_mode_bits_of_new_file) {
    int fd = OK(open("f", O_CREAT | O_RDWR | O_EXCL, 0000));
    EQ(write(fd, "x", 1), 1);
    OK(close(fd));
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_mode & 0777, 0);
}

CASE(creat_call) {
    put("f", "abc");
    int fd = OK(creat("f", 0600));
    EQ(size_of("f"), 0);
    EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
}

CASE(dotdot_and_slashes) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/e", 0755));
    put("f", "top");
    holds("d/e/../../f", "top");
    holds("d//e/.././..//f", "top");
    holds("./f", "top");
    ERR(open("d/none/../../f", O_RDONLY), ENOENT);
    ERR(open("f/..", O_RDONLY), ENOTDIR);
}

CASE(dotdot_after_symlink_is_physical) {
    OK(mkdir("a", 0755));
    OK(mkdir("a/b", 0755));
    put("a/f", "physical");
    put("f", "lexical");
    OK(symlink("a/b", "l"));
    holds("l/../f", "physical");
}

CASE(trailing_slash) {
    OK(mkdir("d", 0755));
    OK(symlink("d", "l"));
    OK(close(OK(open("d/", O_RDONLY))));
    OK(close(OK(open("l/", O_RDONLY))));
    ERR(open("new/", O_CREAT | O_WRONLY, 0644), EISDIR);
    ERR(mknod("new/", S_IFREG | 0644, 0), ENOENT);
    OK(mkdir("e/", 0755));
    OK(rmdir("e/"));
}

CASE(absolute_symlink) {
    char cwd[PATH_MAX], path[PATH_MAX + 8];
    CHECK(getcwd(cwd, sizeof cwd));
    snprintf(path, sizeof path, "%s/f", cwd);
    put("f", "absolute");
    OK(symlink(path, "l"));
    holds("l", "absolute");
}

CASE(symlink_out_and_in) {
    OK(symlink("/etc/passwd", "out"));
    int fd = OK(open("out", O_RDONLY));
    char c;
    EQ(read(fd, &c, 1), 1);
    OK(symlink("/", "root"));
    struct stat a, b;
    OK(stat("root/etc/passwd", &a));
    OK(stat("/etc/passwd", &b));
    EQ(a.st_ino, b.st_ino);
}

CASE(openat2_resolve) {
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
    OK(mkdir("d", 0755));
    put("d/f", "x");
    put("g", "x");
    OK(symlink("f", "d/l"));
    int dir = OK(open("d", O_RDONLY | O_DIRECTORY));
    long fd = syscall(SYS_openat2, dir, "f", &how, sizeof how);
    OK(fd);
    ERR(syscall(SYS_openat2, dir, "../g", &how, sizeof how), EXDEV);
    ERR(syscall(SYS_openat2, dir, "/etc/passwd", &how, sizeof how), EXDEV);
    how.resolve = RESOLVE_NO_SYMLINKS;
    ERR(syscall(SYS_openat2, dir, "l", &how, sizeof how), ELOOP);
    how.resolve = RESOLVE_IN_ROOT;
    fd = OK(syscall(SYS_openat2, dir, "/f", &how, sizeof how));
    how.resolve = 0;
    how.flags = O_CREAT | O_RDWR;
    how.mode = 0600;
    fd = OK(syscall(SYS_openat2, dir, "n", &how, sizeof how));
    EQ(write(fd, "x", 1), 1);
}

CASE(permission_denied) {
    OK(close(OK(open("f", O_CREAT | O_WRONLY, 0600))));
    OK(mkdir("closed", 0700));
    put("closed/f", "x");
    OK(chmod("f", 0600));
    become_nobody();
    ERR(open("f", O_RDONLY), EACCES);
    ERR(open("f", O_WRONLY), EACCES);
    ERR(open("closed/f", O_RDONLY), EACCES);
    ERR(open("closed/new", O_CREAT | O_WRONLY, 0644), EACCES);
    OK(open("mine", O_CREAT | O_WRONLY, 0644));
}

CASE(noatime_and_sync_flags) {
    put("f", "x");
    OK(close(OK(open("f", O_RDONLY | O_NOATIME))));
    OK(close(OK(open("f", O_WRONLY | O_SYNC))));
    OK(close(OK(open("f", O_WRONLY | O_DSYNC))));
    OK(close(OK(open("f", O_RDONLY | O_NONBLOCK | O_NOCTTY))));
}

/* Whatever others remove meanwhile, O_CREAT finds or makes a file. */
CASE(create_while_others_remove) {
    pid_t children[3];
    for (int child = 0; child < 3; child++) {
        children[child] = OK(fork());
        if (children[child] != 0) continue;
        for (int i = 0; i < 5000; i++) {
            int fd = open("f", O_CREAT | O_RDWR, 0644);
            if (fd < 0 || close(fd) != 0) _exit(errno);
            if (unlink("f") != 0 && errno != ENOENT) _exit(100);
        }
        _exit(0);
    }
    for (int child = 0; child < 3; child++) EQ(wait_for(children[child]), 0);
}
