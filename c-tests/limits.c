/* Names of 255 bytes, paths of 4096, ELOOP, odd bytes in names, many files. */
#include "check.h"
#include <sys/mman.h>
#include <sys/resource.h>

CASE(longest_name) {
    char name[300];
    memset(name, 'n', sizeof name);
    name[255] = 0;
    put(name, "x");
    holds(name, "x");
    DIR *d = opendir(".");
    struct dirent *e;
    int seen = 0;
    while ((e = readdir(d))) seen |= strcmp(e->d_name, name) == 0;
    EQ(seen, 1);
    OK(rename(name, "short"));
    OK(rename("short", name));
    OK(unlink(name));
    name[255] = 'n';
    name[256] = 0;
    ERR(open(name, O_CREAT | O_WRONLY, 0644), ENAMETOOLONG);
    ERR(mkdir(name, 0755), ENAMETOOLONG);
    ERR(symlink("x", name), ENAMETOOLONG);
    struct stat st;
    ERR(stat(name, &st), ENAMETOOLONG);
    put("f", "");
    ERR(rename("f", name), ENAMETOOLONG);
    ERR(link("f", name), ENAMETOOLONG);
}

CASE(longest_path) {
    static char path[5000];
    memset(path, '/', sizeof path);
    path[0] = '.';
    put("f", "x");
    path[4094] = 'f';
    path[4095] = 0;
    holds(path, "x");
    path[4094] = '/';
    path[4095] = 'f';
    path[4096] = 0;
    ERR(open(path, O_RDONLY), ENAMETOOLONG);
    ERR(mkdir(path, 0755), ENAMETOOLONG);
}

CASE(longest_symlink) {
    static char target[4200];
    memset(target, 'a', sizeof target);
    for (int i = 100; i < 4200; i += 100) target[i] = '/';
    target[4095] = 0;
    OK(symlink(target, "l"));
    static char back[5000];
    EQ(readlink("l", back, sizeof back), 4095);
    MEM(back, target, 4095);
    target[4095] = 'a';
    target[4096] = 0;
    ERR(symlink(target, "m"), ENAMETOOLONG);
}

CASE(odd_names) {
    const char *names[] = {"with space", "new\nline", "\xff\xfe\x80", "-rf", "...", ".hidden", "a:b*c?", "\\", "'quote\""};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        put(names[i], names[i]);
    }
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        holds(names[i], names[i]);
        OK(unlink(names[i]));
    }
}

CASE(case_matters) {
    put("Name", "upper");
    put("name", "lower");
    holds("Name", "upper");
    holds("name", "lower");
}

CASE(many_links) {
    put("f", "");
    char name[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "l%d", i);
        OK(link("f", name));
    }
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_nlink, 1001);
}

CASE(deeper_than_path_max) {
    char name[201];
    memset(name, 'd', 200);
    name[200] = 0;
    for (int i = 0; i < 30; i++) {
        OK(mkdir(name, 0755));
        OK(chdir(name));
    }
    put("f", "deep");
    holds("f", "deep");
    OK(unlink("f"));
    for (int i = 0; i < 30; i++) {
        OK(chdir(".."));
        OK(rmdir(name));
    }
}

CASE(create_remove_many) {
    char name[32];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3000; i++) {
            snprintf(name, sizeof name, "f%d", i);
            OK(close(OK(open(name, O_CREAT | O_EXCL | O_WRONLY, 0644))));
        }
        for (int i = 0; i < 3000; i++) {
            snprintf(name, sizeof name, "f%d", i);
            OK(unlink(name));
        }
    }
    DIR *d = opendir(".");
    int n = 0;
    while (readdir(d)) n++;
    EQ(n, 2);
}

/* What is written does not depend on a descriptor being left. */
CASE(large_write_without_descriptors) {
    enum { LEN = 256 << 10 };
    static unsigned char buf[LEN], back[LEN];
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    fill(buf, 4096, 0, 1);
    EQ(write(fd, buf, 4096), 4096);
    struct rlimit few = {100, 100};
    OK(setrlimit(RLIMIT_NOFILE, &few));
    while (dup(fd) >= 0) {}
    EQ(errno, EMFILE);
    fill(buf, LEN, 0, 2);
    EQ(pwrite(fd, buf, LEN, 0), LEN);
    EQ(pread(fd, back, LEN, 0), LEN);
    MEM(back, buf, LEN);
}

/* The number is taken before anything is made or emptied. */
CASE(open_without_descriptors_changes_nothing) {
    put("f", "content");
    int fd = OK(open("f", O_RDONLY));
    struct rlimit few = {100, 100};
    OK(setrlimit(RLIMIT_NOFILE, &few));
    int last = fd;
    for (int next; (next = dup(fd)) >= 0; last = next) {}
    EQ(errno, EMFILE);
    ERR(open("f", O_WRONLY | O_TRUNC), EMFILE);
    ERR(open("new", O_WRONLY | O_CREAT | O_EXCL, 0644), EMFILE);
    ERR(open(".", O_WRONLY | O_TMPFILE, 0644), EMFILE);
    OK(close(last));
    holds("f", "content");
    ERR(access("new", F_OK), ENOENT);
    OK(close(OK(open("f", O_WRONLY | O_TRUNC))));
    holds("f", "");
}

static void limit_address_space(rlim_t bytes) {
    struct rlimit limit = {bytes, bytes};
    OK(setrlimit(RLIMIT_AS, &limit));
}

CASE(little_address_space) {
    put("before", "x");
    limit_address_space(12UL << 30);
    char *half = malloc(1 << 29);
    CHECK(half);
    memset(half, 1, 1 << 20);
    for (int i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%d", i);
        OK(close(OK(open(name, O_CREAT | O_EXCL | O_WRONLY, 0644))));
    }
    holds("before", "x");
    free(half);
    EQ(system("test -e f19999 && echo child > out && cat out > copy && rm f?????"), 0);
    holds("copy", "child\n");
    ERR(open("f19999", O_RDONLY), ENOENT);
}

CASE(small_files_only) {
    enum { MIB = 1 << 20, BIG = 8 * MIB };
    static char data[MIB];
    char name[32];
    int big = OK(open("big", O_CREAT | O_RDWR, 0644));
    for (int i = 0; i < 8; i++) EQ(write(big, data, MIB), MIB);
    struct rlimit limit = {MIB, RLIM_INFINITY};
    OK(setrlimit(RLIMIT_FSIZE, &limit));
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "f%d", i);
        int fd = OK(open(name, O_CREAT | O_WRONLY, 0644));
        EQ(write(fd, data, MIB), MIB);
        OK(close(fd));
    }
    char *map = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED, big, 0);
    CHECK(map != MAP_FAILED);
    map[BIG - 1] = 'x';
    OK(msync(map, BIG, MS_SYNC));
    char last;
    EQ(pread(big, &last, 1, BIG - 1), 1);
    EQ(last, 'x');
    struct rlimit now;
    OK(getrlimit(RLIMIT_FSIZE, &now));
    EQ(now.rlim_cur, MIB);
    EQ(now.rlim_max, RLIM_INFINITY);
    signal(SIGXFSZ, SIG_IGN);
    int fd = OK(open("f0", O_WRONLY | O_APPEND));
    ERR(write(fd, data, 1), EFBIG);
    ERR(ftruncate(fd, MIB + 1), EFBIG);
    char outside[] = "/tmp/limited-XXXXXX";
    fd = OK(mkstemp(outside));
    OK(unlink(outside));
    ERR(ftruncate(fd, MIB + 1), EFBIG);
}
