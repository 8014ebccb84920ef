/* FIFOs, sockets, device nodes as entries; statfs(2). */
#include "check.h"
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

CASE(fifo_entry) {
    OK(mkfifo("p", 0640));
    struct stat st;
    OK(stat("p", &st));
    EQ(S_ISFIFO(st.st_mode), 1);
    EQ(st.st_mode & 0777, 0640);
    ERR(mkfifo("p", 0644), EEXIST);
    ERR(open("p", O_WRONLY | O_NONBLOCK), ENXIO);
    OK(rename("p", "q"));
    OK(chmod("q", 0600));
    OK(unlink("q"));
}

CASE(fifo_carries_data) {
    OK(mkfifo("p", 0600));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int fd = OK(open("p", O_WRONLY));
        EQ(write(fd, "through", 7), 7);
        _exit(0);
    }
    int fd = OK(open("p", O_RDONLY));
    char buf[16] = {0};
    EQ(read(fd, buf, 16), 7);
    STR(buf, "through");
    EQ(wait_for(pid), 0);
}

CASE(nodes) {
    if (geteuid() != 0) SKIP("needs root");
    if (mknod("c", S_IFCHR | 0600, makedev(1, 3)) != 0 && errno == EPERM) SKIP("mknod not allowed");
    struct stat st;
    OK(stat("c", &st));
    EQ(S_ISCHR(st.st_mode), 1);
    EQ(st.st_rdev, makedev(1, 3));
    OK(mknod("r", S_IFREG | 0600, 0));
    put("r", "regular");
    holds("r", "regular");
    ERR(mknod("d", S_IFDIR | 0700, 0), EPERM);
    OK(mknod("s", S_IFSOCK | 0600, 0));
    OK(stat("s", &st));
    EQ(S_ISSOCK(st.st_mode), 1);
    ERR(open("s", O_RDONLY), ENXIO);
}

CASE(nodes_need_privilege) {
    become_nobody();
    ERR(mknod("c", S_IFCHR | 0600, makedev(1, 3)), EPERM);
    OK(mkfifo("p", 0600));
}

CASE(unix_socket) {
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "sock"};
    int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(bind(s, (struct sockaddr *)&a, sizeof a));
    struct stat st;
    OK(stat("sock", &st));
    EQ(S_ISSOCK(st.st_mode), 1);
    OK(listen(s, 1));
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(connect(c, (struct sockaddr *)&a, sizeof a));
    int t = OK(accept(s, NULL, NULL));
    EQ(write(c, "hi", 2), 2);
    char buf[4] = {0};
    EQ(read(t, buf, 4), 2);
    STR(buf, "hi");
    ERR(bind(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&a, sizeof a), EADDRINUSE);
    OK(unlink("sock"));
}

CASE(statfs_call) {
    struct statfs a, b;
    OK(statfs(".", &a));
    int fd = OK(open(".", O_RDONLY));
    OK(fstatfs(fd, &b));
    EQ(a.f_type, b.f_type);
    EQ(a.f_bsize, b.f_bsize);
    CHECK(a.f_blocks > 0);
    CHECK(a.f_bfree <= a.f_blocks);
    CHECK(a.f_bavail <= a.f_bfree);
    EQ(a.f_namelen, 255);
    struct statvfs v;
    OK(statvfs(".", &v));
    EQ(v.f_namemax, 255);
    CHECK(v.f_frsize > 0);
    ERR(statfs("none", &a), ENOENT);
}
