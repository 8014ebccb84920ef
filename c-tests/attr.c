/* chmod(2), chown(2), utimensat(2), relatime, truncated permissions. */
#include "check.h"
#include <sys/syscall.h>
#include <sys/time.h>
#include <utime.h>

static struct stat at(const char *path) {
    struct stat st;
    OK(lstat(path, &st));
    return st;
}

CASE(chmod_doors) {
    put("f", "");
    OK(chmod("f", 0751));
    EQ(at("f").st_mode & 07777, 0751);
    int fd = OK(open("f", O_RDONLY));
    OK(fchmod(fd, 0604));
    EQ(at("f").st_mode & 07777, 0604);
    OK(fchmodat(AT_FDCWD, "f", 04755, 0));
    EQ(at("f").st_mode & 07777, 04755);
    ERR(chmod("none", 0644), ENOENT);
    OK(symlink("f", "l"));
    OK(chmod("l", 0600));
    EQ(at("f").st_mode & 07777, 0600);
    OK(mkdir("d", 0755));
    OK(chmod("d", 01777));
    EQ(at("d").st_mode & 07777, 01777);
}

CASE(chmod_needs_owner) {
    put("f", "");
    become_nobody();
    ERR(chmod("f", 0777), EPERM);
    put("mine", "");
    OK(chmod("mine", 0600));
}

CASE(chown_doors) {
    if (geteuid() != 0) SKIP("needs root");
    put("f", "");
    OK(chown("f", 10, 20));
    EQ(at("f").st_uid, 10);
    EQ(at("f").st_gid, 20);
    OK(chown("f", -1, 30));
    EQ(at("f").st_uid, 10);
    EQ(at("f").st_gid, 30);
    OK(chown("f", 11, -1));
    EQ(at("f").st_uid, 11);
    int fd = OK(open("f", O_RDONLY));
    OK(fchown(fd, 1, 2));
    EQ(at("f").st_gid, 2);
    OK(symlink("f", "l"));
    OK(lchown("l", 7, 8));
    EQ(at("l").st_uid, 7);
    EQ(at("f").st_uid, 1);
    OK(fchownat(AT_FDCWD, "l", 5, 6, 0));
    EQ(at("f").st_uid, 5);
    OK(fchownat(fd, "", 50, 60, AT_EMPTY_PATH));
    EQ(at("f").st_uid, 50);
}

CASE(chown_drops_setid) {
    if (geteuid() != 0) SKIP("needs root");
    put("f", "");
    OK(chmod("f", 06755));
    OK(chown("f", 1, 1));
    EQ(at("f").st_mode & 06000, 0);
}

CASE(chown_needs_root) {
    put("f", "");
    become_nobody();
    ERR(chown("f", 65534, 65534), EPERM);
    put("mine", "");
    ERR(chown("mine", 0, -1), EPERM);
    OK(chown("mine", -1, 65534));
    ERR(chown("mine", -1, 3), EPERM);
}

CASE(times_exact) {
    put("f", "");
    struct timespec t[2] = {{1234567890, 123456789}, {987654321, 987654321}};
    OK(utimensat(AT_FDCWD, "f", t, 0));
    EQ(at("f").st_atim.tv_sec, 1234567890);
    EQ(at("f").st_atim.tv_nsec, 123456789);
    EQ(at("f").st_mtim.tv_sec, 987654321);
    EQ(at("f").st_mtim.tv_nsec, 987654321);
    struct timespec before_1970[2] = {{-1000, 5}, {-1000, 5}};
    OK(utimensat(AT_FDCWD, "f", before_1970, 0));
    EQ(at("f").st_mtim.tv_sec, -1000);
    EQ(at("f").st_mtim.tv_nsec, 5);
}

CASE(times_now_and_omit) {
    put("f", "");
    struct timespec t[2] = {{1000, 1}, {2000, 2}};
    OK(utimensat(AT_FDCWD, "f", t, 0));
    struct timespec now_omit[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    OK(utimensat(AT_FDCWD, "f", now_omit, 0));
    CHECK(at("f").st_atim.tv_sec > 1000000);
    EQ(at("f").st_mtim.tv_sec, 2000);
    int fd = OK(open("f", O_RDONLY));
    OK(futimens(fd, NULL));
    CHECK(at("f").st_mtim.tv_sec > 1000000);
    struct timespec bad[2] = {{0, 1000000000}, {0, 0}};
    ERR(utimensat(AT_FDCWD, "f", bad, 0), EINVAL);
    ERR(utimensat(AT_FDCWD, "none", t, 0), ENOENT);
}

CASE(times_of_symlink) {
    put("f", "");
    OK(symlink("f", "l"));
    struct timespec t[2] = {{1000, 1}, {2000, 2}};
    OK(utimensat(AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW));
    EQ(at("l").st_mtim.tv_sec, 2000);
    CHECK(at("f").st_mtim.tv_sec > 2000);
    OK(utimensat(AT_FDCWD, "l", t, 0));
    EQ(at("f").st_mtim.tv_sec, 2000);
}

CASE(old_time_calls) {
    put("f", "");
    struct utimbuf u = {111, 222};
    OK(utime("f", &u));
    EQ(at("f").st_atim.tv_sec, 111);
    EQ(at("f").st_mtim.tv_sec, 222);
    struct timeval tv[2] = {{333, 1}, {444, 2}};
    OK(utimes("f", tv));
    EQ(at("f").st_mtim.tv_sec, 444);
    EQ(at("f").st_mtim.tv_nsec, 2000);
    tv[1].tv_sec = 555;
    OK(futimesat(AT_FDCWD, "f", tv));
    EQ(at("f").st_mtim.tv_sec, 555);
    int fd = OK(open("f", O_RDONLY));
    tv[1].tv_sec = 666;
    OK(futimes(fd, tv));
    EQ(at("f").st_mtim.tv_sec, 666);
}

CASE(times_permission) {
    put("f", "");
    OK(chmod("f", 0666));
    become_nobody();
    struct timespec t[2] = {{1000, 1}, {2000, 2}};
    ERR(utimensat(AT_FDCWD, "f", t, 0), EPERM);
    OK(utimensat(AT_FDCWD, "f", NULL, 0));
}

CASE(relatime) {
    put("f", "abc");
    char c;
    struct timespec t[2] = {{1000, 0}, {2000, 0}};
    OK(utimensat(AT_FDCWD, "f", t, 0));
    usleep(20000);
    int fd = OK(open("f", O_RDONLY));
    EQ(read(fd, &c, 1), 1);
    CHECK(at("f").st_atim.tv_sec > 2000);
    struct timespec later = at("f").st_atim;
    OK(close(fd));
    usleep(20000);
    fd = OK(open("f", O_RDONLY));
    EQ(read(fd, &c, 1), 1);
    EQ(at("f").st_atim.tv_nsec, later.tv_nsec);
}

CASE(ctime_of_changes) {
    put("f", "");
    struct timespec c = at("f").st_ctim;
    usleep(20000);
    OK(chmod("f", 0600));
    CHECK(at("f").st_ctim.tv_nsec != c.tv_nsec);
    c = at("f").st_ctim;
    usleep(20000);
    OK(rename("f", "g"));
    CHECK(at("g").st_ctim.tv_nsec != c.tv_nsec);
}

CASE(group_permissions) {
    if (geteuid() != 0) SKIP("needs root");
    OK(close(OK(open("f", O_CREAT | O_WRONLY, 0660))));
    OK(chmod("f", 0660));
    OK(chown("f", 0, 4321));
    OK(chmod(".", 0755));
    gid_t groups[] = {4321};
    OK(syscall(SYS_setgroups, 1, groups));
    OK(setresgid(65534, 65534, 65534));
    OK(setresuid(65534, 65534, 65534));
    OK(close(OK(open("f", O_RDWR))));
}

CASE(many_groups) {
    if (geteuid() != 0) SKIP("needs root");
    put("shut", "");
    OK(chmod("shut", 0707));
    OK(chown("shut", 0, 5999));
    put("open", "");
    OK(chmod("open", 0660));
    OK(chown("open", 0, 5998));
    OK(chmod(".", 0755));
    static gid_t groups[1000];
    for (int i = 0; i < 1000; i++) groups[i] = 5000 + i;
    OK(syscall(SYS_setgroups, 1000, groups));
    OK(setresgid(65534, 65534, 65534));
    OK(setresuid(65534, 65534, 65534));
    ERR(open("shut", O_RDONLY), EACCES);
    OK(close(OK(open("open", O_RDWR))));
}

CASE(setgid_cleared_for_strangers) {
    if (geteuid() != 0) SKIP("needs root");
    put("f", "");
    OK(chown("f", 65534, 4321));
    become_nobody();
    OK(chmod("f", 02755));
    EQ(at("f").st_mode & 07777, 0755);
}

CASE(owner_class_comes_first) {
    if (geteuid() != 0) SKIP("needs root");
    put("f", "");
    OK(chown("f", 65534, 65534));
    OK(chmod("f", 0077));
    become_nobody();
    ERR(open("f", O_RDONLY), EACCES);
}

CASE(umask_change) {
    EQ(umask(077), 022);
    put("f", "");
    EQ(at("f").st_mode & 0777, 0600);
    EQ(umask(0), 077);
    OK(mkdir("d", 0777));
    EQ(at("d").st_mode & 0777, 0777);
}
