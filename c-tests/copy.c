/* sendfile(2), copy_file_range(2), splice(2), tee(2): inside the directory and over its border. */
#include "check.h"
#include <sys/sendfile.h>
#include <sys/socket.h>

static int make(const char *name, size_t len) {
    int fd = OK(open(name, O_CREAT | O_RDWR, 0644));
    unsigned char *buf = malloc(len);
    fill(buf, len, 0, 21);
    EQ(write(fd, buf, len), len);
    free(buf);
    OK(lseek(fd, 0, SEEK_SET));
    return fd;
}

static void verify(int fd, size_t len) {
    unsigned char *buf = malloc(len + 1);
    EQ(pread(fd, buf, len + 1, 0), len);
    filled(buf, len, 0, 21);
    free(buf);
}

static int foreign(void) {
    char name[] = "/tmp/pil4dfs-copy-XXXXXX";
    int fd = OK(mkstemp(name));
    OK(unlink(name));
    return fd;
}

CASE(copy_file_range_inside) {
    int in = make("f", 300000), out = OK(open("g", O_CREAT | O_RDWR, 0644));
    size_t left = 300000;
    while (left > 0) {
        ssize_t n = OK(copy_file_range(in, NULL, out, NULL, left, 0));
        CHECK(n > 0);
        left -= n;
    }
    EQ(lseek(in, 0, SEEK_CUR), 300000);
    EQ(lseek(out, 0, SEEK_CUR), 300000);
    verify(out, 300000);
    EQ(copy_file_range(in, NULL, out, NULL, 10, 0), 0);
}

CASE(copy_file_range_offsets) {
    int in = make("f", 100000), out = OK(open("g", O_CREAT | O_RDWR, 0644));
    loff_t from = 50000, to = 10;
    EQ(copy_file_range(in, &from, out, &to, 1000, 0), 1000);
    EQ(from, 51000);
    EQ(to, 1010);
    EQ(lseek(in, 0, SEEK_CUR), 0);
    unsigned char buf[1000];
    EQ(pread(out, buf, 1000, 10), 1000);
    filled(buf, 1000, 50000, 21);
    from = 0;
    to = 500;
    ERR(copy_file_range(in, &from, in, &to, 1000, 0), EINVAL);
    ERR(copy_file_range(in, &from, out, &to, 1, 1), EINVAL);
    int rd = OK(open("g", O_RDONLY));
    ERR(copy_file_range(in, NULL, rd, NULL, 10, 0), EBADF);
}

CASE(copy_file_range_over_border) {
    int in = make("f", 100000), out = foreign();
    size_t left = 100000;
    while (left > 0) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, left, 0);
        if (n < 0 && errno == EXDEV) SKIP("EXDEV");
        CHECK(n > 0);
        left -= n;
    }
    verify(out, 100000);
}

CASE(sendfile_inside) {
    int in = make("f", 200000), out = OK(open("g", O_CREAT | O_RDWR, 0644));
    size_t left = 200000;
    while (left > 0) {
        ssize_t n = OK(sendfile(out, in, NULL, left));
        CHECK(n > 0);
        left -= n;
    }
    verify(out, 200000);
    off_t at = 1000;
    OK(ftruncate(out, 0));
    OK(lseek(out, 0, SEEK_SET));
    EQ(sendfile(out, in, &at, 50), 50);
    EQ(at, 1050);
    EQ(lseek(in, 0, SEEK_CUR), 200000);
}

CASE(sendfile_to_socket) {
    int in = make("f", 100000), pair[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pid_t pid = OK(fork());
    if (pid == 0) {
        OK(close(pair[0]));
        static unsigned char buf[100000];
        size_t got = 0;
        while (got < sizeof buf) {
            ssize_t n = OK(read(pair[1], buf + got, sizeof buf - got));
            CHECK(n > 0);
            got += n;
        }
        filled(buf, sizeof buf, 0, 21);
        _exit(0);
    }
    size_t left = 100000;
    while (left > 0) {
        ssize_t n = OK(sendfile(pair[0], in, NULL, left));
        CHECK(n > 0);
        left -= n;
    }
    EQ(wait_for(pid), 0);
}

CASE(sendfile_from_foreign) {
    int in = foreign(), out = OK(open("g", O_CREAT | O_RDWR, 0644));
    static unsigned char buf[70000];
    fill(buf, sizeof buf, 0, 21);
    EQ(write(in, buf, sizeof buf), sizeof buf);
    off_t at = 0;
    while (at < (off_t)sizeof buf) CHECK(sendfile(out, in, &at, sizeof buf - at) > 0);
    verify(out, sizeof buf);
}

CASE(splice_through_pipe) {
    int in = make("f", 60000), out = OK(open("g", O_CREAT | O_RDWR, 0644)), pipes[2];
    OK(pipe(pipes));
    size_t left = 60000;
    while (left > 0) {
        ssize_t n = OK(splice(in, NULL, pipes[1], NULL, left, 0));
        CHECK(n > 0);
        left -= n;
        while (n > 0) {
            ssize_t m = OK(splice(pipes[0], NULL, out, NULL, n, 0));
            CHECK(m > 0);
            n -= m;
        }
    }
    verify(out, 60000);
    loff_t at = 100;
    EQ(splice(in, &at, pipes[1], NULL, 10, 0), 10);
    EQ(at, 110);
    unsigned char buf[10];
    EQ(read(pipes[0], buf, 10), 10);
    filled(buf, 10, 100, 21);
}

CASE(read_from_pipe_into_file) {
    int pipes[2];
    OK(pipe(pipes));
    pid_t pid = OK(fork());
    if (pid == 0) {
        OK(close(pipes[0]));
        static unsigned char buf[150000];
        fill(buf, sizeof buf, 0, 21);
        EQ(write(pipes[1], buf, sizeof buf), sizeof buf);
        _exit(0);
    }
    OK(close(pipes[1]));
    int out = OK(open("g", O_CREAT | O_RDWR, 0644));
    char buf[5000];
    ssize_t n;
    while ((n = OK(read(pipes[0], buf, sizeof buf))) > 0) EQ(write(out, buf, n), n);
    EQ(wait_for(pid), 0);
    verify(out, 150000);
}
