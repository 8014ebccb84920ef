/* poll(2), select(2), epoll(7), ioctl(2), isatty(3), asynchronous I/O on regular files. */
#include "check.h"
#include <aio.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>

CASE(poll_is_ready) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    EQ(poll(&p, 1, 1000), 1);
    EQ(p.revents, POLLIN | POLLOUT);
    int rd = OK(open("f", O_RDONLY));
    p = (struct pollfd){rd, POLLIN, 0};
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, POLLIN);
    p.fd = 999;
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, POLLNVAL);
}

CASE(poll_mixed_with_pipe) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644)), pipes[2];
    OK(pipe(pipes));
    struct pollfd p[2] = {{pipes[0], POLLIN, 0}, {fd, POLLOUT, 0}};
    EQ(poll(p, 2, 0), 1);
    EQ(p[0].revents, 0);
    EQ(write(pipes[1], "x", 1), 1);
    EQ(poll(p, 2, 0), 2);
}

CASE(select_is_ready) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    fd_set r, w;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(fd, &r);
    FD_SET(fd, &w);
    struct timeval t = {1, 0};
    EQ(select(fd + 1, &r, &w, NULL, &t), 2);
    CHECK(FD_ISSET(fd, &r) && FD_ISSET(fd, &w));
}

CASE(epoll_refuses) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644)), e = OK(epoll_create1(0));
    struct epoll_event ev = {.events = EPOLLIN};
    ERR(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev), EPERM);
}

CASE(ioctls) {
    put("f", "12345");
    int fd = OK(open("f", O_RDONLY));
    EQ(isatty(fd), 0);
    EQ(errno, ENOTTY);
    int n;
    OK(lseek(fd, 2, SEEK_SET));
    OK(ioctl(fd, FIONREAD, &n));
    EQ(n, 3);
    OK(ioctl(fd, FIOCLEX));
    EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    OK(ioctl(fd, FIONCLEX));
    EQ(fcntl(fd, F_GETFD), 0);
    ERR(ioctl(fd, 0x12345678, &n), ENOTTY);
    n = 1;
    OK(ioctl(fd, FIONBIO, &n));
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

CASE(posix_aio) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    char text[] = "asynchronous", buf[16] = {0};
    struct aiocb w = {.aio_fildes = fd, .aio_buf = text, .aio_nbytes = 12, .aio_offset = 3};
    const struct aiocb *list[] = {&w};
    OK(aio_write(&w));
    while (aio_error(&w) == EINPROGRESS) OK(aio_suspend(list, 1, NULL));
    EQ(aio_error(&w), 0);
    EQ(aio_return(&w), 12);
    struct aiocb r = {.aio_fildes = fd, .aio_buf = buf, .aio_nbytes = 12, .aio_offset = 3};
    OK(aio_read(&r));
    list[0] = &r;
    while (aio_error(&r) == EINPROGRESS) OK(aio_suspend(list, 1, NULL));
    EQ(aio_return(&r), 12);
    STR(buf, "asynchronous");
}

CASE(path_limits) {
    EQ(pathconf(".", _PC_NAME_MAX), 255);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(fpathconf(fd, _PC_NAME_MAX), 255);
    EQ(pathconf(".", _PC_PATH_MAX), 4096);
}
