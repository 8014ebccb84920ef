/* stat(2) family, statx(2), access(2): one file, many doors, one answer. */
#include "check.h"
#include <sys/syscall.h>
#include <sys/sysmacros.h>

static void same(const struct stat *a, const struct stat *b) {
    EQ(a->st_dev, b->st_dev);
    EQ(a->st_ino, b->st_ino);
    EQ(a->st_mode, b->st_mode);
    EQ(a->st_nlink, b->st_nlink);
    EQ(a->st_uid, b->st_uid);
    EQ(a->st_gid, b->st_gid);
    EQ(a->st_size, b->st_size);
    EQ(a->st_mtim.tv_sec, b->st_mtim.tv_sec);
    EQ(a->st_mtim.tv_nsec, b->st_mtim.tv_nsec);
    EQ(a->st_ctim.tv_nsec, b->st_ctim.tv_nsec);
}

CASE(every_door) {
    put("f", "hello");
    struct stat a, b;
    int fd = OK(open("f", O_RDONLY));
    OK(stat("f", &a));
    OK(fstat(fd, &b));
    same(&a, &b);
    OK(lstat("f", &b));
    same(&a, &b);
    OK(fstatat(AT_FDCWD, "f", &b, 0));
    same(&a, &b);
    OK(fstatat(fd, "", &b, AT_EMPTY_PATH));
    same(&a, &b);
    int dir = OK(open(".", O_RDONLY | O_DIRECTORY));
    OK(fstatat(dir, "f", &b, AT_SYMLINK_NOFOLLOW));
    same(&a, &b);
    struct statx x;
    OK(statx(dir, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &x));
    EQ(x.stx_ino, a.st_ino);
    EQ(x.stx_size, 5);
    EQ(x.stx_mode, a.st_mode);
    EQ(makedev(x.stx_dev_major, x.stx_dev_minor), a.st_dev);
    EQ(x.stx_mtime.tv_nsec, a.st_mtim.tv_nsec);
    CHECK((x.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    OK(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &x));
    EQ(x.stx_size, 5);
}

CASE(ownership_of_new_files) {
    put("f", "");
    OK(mkdir("d", 0755));
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_uid, geteuid());
    EQ(st.st_gid, getegid());
    OK(stat("d", &st));
    EQ(st.st_uid, geteuid());
    EQ(S_ISDIR(st.st_mode), 1);
}

CASE(directory_links) {
    struct stat st;
    OK(mkdir("d", 0755));
    OK(stat("d", &st));
    EQ(st.st_nlink, 2);
    OK(mkdir("d/a", 0755));
    OK(mkdir("d/b", 0755));
    OK(stat("d", &st));
    EQ(st.st_nlink, 4);
    OK(rmdir("d/a"));
    OK(stat("d", &st));
    EQ(st.st_nlink, 3);
    OK(rename("d/b", "b"));
    OK(stat("d", &st));
    EQ(st.st_nlink, 2);
}

CASE(inode_numbers) {
    put("a", "");
    put("b", "");
    struct stat a, b, c;
    OK(stat("a", &a));
    OK(stat("b", &b));
    CHECK(a.st_ino != b.st_ino);
    CHECK(a.st_ino != 0);
    OK(rename("a", "c"));
    OK(stat("c", &c));
    EQ(a.st_ino, c.st_ino);
    EQ(a.st_dev, b.st_dev);
}

CASE(symlink_size) {
    OK(symlink("some/where", "l"));
    struct stat st;
    OK(lstat("l", &st));
    EQ(S_ISLNK(st.st_mode), 1);
    EQ(st.st_size, 10);
    EQ(st.st_mode & 0777, 0777);
    ERR(stat("l", &st), ENOENT);
}

CASE(errors) {
    struct stat st;
    ERR(stat("none", &st), ENOENT);
    ERR(stat("", &st), ENOENT);
    put("f", "");
    ERR(stat("f/x", &st), ENOTDIR);
    ERR(stat("f/", &st), ENOTDIR);
    ERR(fstatat(-1, "f", &st, 0), EBADF);
    ERR(fstatat(AT_FDCWD, "f", &st, 0x80000), EINVAL);
    ERR(fstat(-1, &st), EBADF);
    struct statx x;
    ERR(statx(AT_FDCWD, "f", 0, 0x80000000u, &x), EINVAL);
}

CASE(access_as_owner) {
    put("f", "");
    OK(chmod("f", 0400));
    OK(access("f", F_OK));
    OK(access("f", R_OK));
    ERR(access("none", F_OK), ENOENT);
    ERR(access("f", 8), EINVAL);
    ERR(access("f", X_OK), EACCES);
    OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
    OK(chmod("f", 0100));
    OK(access("f", X_OK));
}

CASE(access_uses_real_ids) {
    if (geteuid() != 0) SKIP("needs root");
    OK(close(OK(open("f", O_CREAT | O_WRONLY, 0600))));
    OK(chmod(".", 0755));
    OK(setresuid(65534, 0, 0));
    ERR(access("f", R_OK), EACCES);
    OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
}

CASE(access_of_nobody) {
    OK(close(OK(open("f", O_CREAT | O_WRONLY, 0640))));
    become_nobody();
    OK(access("f", F_OK));
    ERR(access("f", R_OK), EACCES);
    ERR(access("f", W_OK), EACCES);
    OK(access(".", W_OK | X_OK));
}

CASE(btime_is_stable) {
    put("f", "");
    struct statx x, y;
    OK(statx(AT_FDCWD, "f", 0, STATX_BTIME, &x));
    if (!(x.stx_mask & STATX_BTIME)) SKIP("no birth times");
    put("f", "changed");
    OK(statx(AT_FDCWD, "f", 0, STATX_BTIME, &y));
    EQ(x.stx_btime.tv_sec, y.stx_btime.tv_sec);
    EQ(x.stx_btime.tv_nsec, y.stx_btime.tv_nsec);
}

CASE(parent_times_on_change) {
    OK(mkdir("d", 0755));
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    struct stat st;
    OK(utimensat(AT_FDCWD, "d", old, 0));
    put("d/f", "");
    OK(stat("d", &st));
    CHECK(st.st_mtim.tv_sec > 1000);
    OK(utimensat(AT_FDCWD, "d", old, 0));
    OK(rename("d/f", "d/g"));
    OK(stat("d", &st));
    CHECK(st.st_mtim.tv_sec > 1000);
    OK(utimensat(AT_FDCWD, "d", old, 0));
    OK(unlink("d/g"));
    OK(stat("d", &st));
    CHECK(st.st_mtim.tv_sec > 1000);
}

CASE(size_while_open_elsewhere) {
    int fd = OK(open("f", O_CREAT | O_WRONLY, 0644));
    for (int i = 1; i < 100; i++) {
        EQ(write(fd, "0123456789", 10), 10);
        EQ(size_of("f"), i * 10);
    }
}
