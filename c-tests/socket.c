/* AF_UNIX sockets with names in the directory: datagrams to a path, and the names that sockets show. */
#include "check.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un named(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, path);
    return a;
}

static int bound(int type, const char *path) {
    struct sockaddr_un a = named(path);
    int s = OK(socket(AF_UNIX, type, 0));
    OK(bind(s, (struct sockaddr *)&a, sizeof a));
    return s;
}

/* The address has this path, ended by a zero, and the length that goes with it. */
static void is_named(const struct sockaddr_un *a, socklen_t len, const char *path) {
    EQ(a->sun_family, AF_UNIX);
    STR(a->sun_path, path);
    EQ(len, offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
}

static void sock_name(int s, const char *path, int (*ask)(int, struct sockaddr *, socklen_t *)) {
    struct sockaddr_un a;
    memset(&a, 'x', sizeof a);
    socklen_t len = sizeof a;
    OK(ask(s, (struct sockaddr *)&a, &len));
    is_named(&a, len, path);
}

CASE(own_and_peer_names) {
    OK(mkdir("d", 0755));
    int server = bound(SOCK_STREAM, "d/../server"), client = bound(SOCK_STREAM, "client");
    OK(listen(server, 1));
    sock_name(server, "d/../server", getsockname);
    struct sockaddr_un a = named("./server");
    OK(connect(client, (struct sockaddr *)&a, sizeof a));
    sock_name(client, "client", getsockname);
    sock_name(client, "d/../server", getpeername);
    memset(&a, 'x', sizeof a);
    socklen_t len = sizeof a;
    int c = OK(accept(server, (struct sockaddr *)&a, &len));
    is_named(&a, len, "client");
    sock_name(c, "d/../server", getsockname);
    sock_name(c, "client", getpeername);
}

CASE(accept4_and_no_names) {
    int server = bound(SOCK_STREAM, "server");
    OK(listen(server, 2));
    struct sockaddr_un a = named("server");
    int client = OK(socket(AF_UNIX, SOCK_STREAM, 0)), other = bound(SOCK_STREAM, "other");
    OK(connect(client, (struct sockaddr *)&a, sizeof a));
    OK(connect(other, (struct sockaddr *)&a, sizeof a));
    socklen_t len = sizeof a;
    OK(accept4(server, (struct sockaddr *)&a, &len, SOCK_CLOEXEC));
    EQ(len, 2);
    len = sizeof a;
    OK(accept4(server, (struct sockaddr *)&a, &len, SOCK_CLOEXEC));
    is_named(&a, len, "other");
}

CASE(names_are_cut_to_the_room) {
    int s = bound(SOCK_DGRAM, "a-name-that-is-cut");
    char room[16];
    memset(room, 'x', sizeof room);
    socklen_t len = 8;
    OK(getsockname(s, (struct sockaddr *)room, &len));
    EQ(len, 2 + strlen("a-name-that-is-cut") + 1);
    MEM(room + 2, "a-name", 6);
    MEM(room + 8, "xxxxxxxx", 8);
    len = -1;
    ERR(getsockname(s, (struct sockaddr *)room, &len), EINVAL);
}

CASE(datagrams) {
    char long_name[100];
    memset(long_name, 'n', sizeof long_name);
    long_name[99] = 0;
    int a = bound(SOCK_DGRAM, "a"), b = bound(SOCK_DGRAM, long_name);
    struct sockaddr_un to = named("a"), from;
    EQ(sendto(b, "one", 3, 0, (struct sockaddr *)&to, sizeof to), 3);
    char buf[8] = "";
    socklen_t len = sizeof from;
    EQ(recvfrom(a, buf, sizeof buf, 0, (struct sockaddr *)&from, &len), 3);
    MEM(buf, "one", 3);
    is_named(&from, len, long_name);
    /* And back, to the address that came. */
    EQ(sendto(a, "two", 3, 0, (struct sockaddr *)&from, len), 3);
    EQ(recvfrom(b, buf, sizeof buf, 0, NULL, NULL), 3);
    MEM(buf, "two", 3);
    to = named("none");
    ERR(sendto(a, "x", 1, 0, (struct sockaddr *)&to, sizeof to), ENOENT);
    put("file", "");
    to = named("file");
    ERR(sendto(a, "x", 1, 0, (struct sockaddr *)&to, sizeof to), ECONNREFUSED);
    ERR(sendto(a, "x", 1, 0, (struct sockaddr *)8, sizeof to), EFAULT);
}

CASE(messages) {
    int a = bound(SOCK_DGRAM, "a"), b = bound(SOCK_DGRAM, "b");
    struct sockaddr_un to = named("a"), from;
    char text[] = "parts", got[8] = "";
    struct iovec out[] = {{text, 2}, {text + 2, 3}}, in = {got, sizeof got};
    struct msghdr m = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = out, .msg_iovlen = 2};
    int p[2];
    OK(pipe(p));
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    m.msg_control = &control;
    m.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &p[1], sizeof(int));
    EQ(sendmsg(b, &m, 0), 5);
    m = (struct msghdr){.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &in, .msg_iovlen = 1,
                        .msg_control = &control, .msg_controllen = sizeof control};
    EQ(recvmsg(a, &m, 0), 5);
    MEM(got, "parts", 5);
    is_named(&from, m.msg_namelen, "b");
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    EQ(write(fd, "x", 1), 1);
    struct mmsghdr many[2] = {0};
    for (int i = 0; i < 2; i++) {
        many[i].msg_hdr.msg_name = &to;
        many[i].msg_hdr.msg_namelen = sizeof to;
        many[i].msg_hdr.msg_iov = out;
        many[i].msg_hdr.msg_iovlen = 2;
    }
    EQ(sendmmsg(b, many, 2, 0), 2);
    EQ(many[0].msg_len, 5);
    EQ(many[1].msg_len, 5);
    EQ(recv(a, got, 8, 0), 5);
    EQ(recv(a, got, 8, 0), 5);
}

CASE(names_in_another_process) {
    int server = bound(SOCK_STREAM, "server");
    OK(listen(server, 1));
    IN_CHILD({
        struct sockaddr_un a = named("server");
        int s = bound(SOCK_STREAM, "child");
        OK(connect(s, (struct sockaddr *)&a, sizeof a));
        sock_name(s, "server", getpeername);
    });
    struct sockaddr_un a;
    socklen_t len = sizeof a;
    OK(accept(server, (struct sockaddr *)&a, &len));
    is_named(&a, len, "child");
}

CASE(other_addresses) {
    int s = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, "\0abstract-of-this-test", 22);
    a.sun_path[21] = (char)('a' + getpid() % 26);
    OK(bind(s, (struct sockaddr *)&a, 24));
    EQ(sendto(s, "x", 1, 0, (struct sockaddr *)&a, 24), 1);
    char c;
    struct sockaddr_un from;
    socklen_t len = sizeof from;
    EQ(recvfrom(s, &c, 1, 0, (struct sockaddr *)&from, &len), 1);
    EQ(len, 24);
    MEM(&from, &a, 24);
    int pair[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    EQ(sendto(pair[0], "y", 1, 0, NULL, 0), 1);
    EQ(recvfrom(pair[1], &c, 1, 0, NULL, NULL), 1);
    len = sizeof from;
    OK(getsockname(pair[0], (struct sockaddr *)&from, &len));
    EQ(len, 2);
}
