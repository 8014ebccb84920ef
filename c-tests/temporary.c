/* O_TMPFILE, mkstemp(3), tmpfile(3), files unlinked while open. */
#include "check.h"

CASE(unnamed_file) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd < 0 && errno == EOPNOTSUPP) SKIP("no O_TMPFILE");
    OK(fd);
    EQ(write(fd, "secret", 6), 6);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 0);
    EQ(st.st_size, 6);
    DIR *d = opendir(".");
    int n = 0;
    while (readdir(d)) n++;
    EQ(n, 2);
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, name, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    holds("named", "secret");
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 1);
}

CASE(unnamed_file_excl) {
    int fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    if (fd < 0 && errno == EOPNOTSUPP) SKIP("no O_TMPFILE");
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ERR(linkat(AT_FDCWD, name, AT_FDCWD, "named", AT_SYMLINK_FOLLOW), ENOENT);
    ERR(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL);
    put("f", "");
    ERR(open("f", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
}

CASE(empty_path_link) {
    if (geteuid() != 0) SKIP("needs root");
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd < 0 && errno == EOPNOTSUPP) SKIP("no O_TMPFILE");
    EQ(write(fd, "x", 1), 1);
    OK(linkat(fd, "", AT_FDCWD, "named", AT_EMPTY_PATH));
    holds("named", "x");
}

CASE(mkstemp_family) {
    char a[] = "aXXXXXX", b[] = "bXXXXXX.txt", c[] = "cXXXXXX";
    int fd = OK(mkstemp(a));
    EQ(write(fd, "x", 1), 1);
    holds(a, "x");
    OK(mkostemps(b, 4, O_CLOEXEC));
    OK(access(b, F_OK));
    CHECK(mkdtemp(c));
    struct stat st;
    OK(stat(c, &st));
    EQ(st.st_mode & 0777, 0700);
}

CASE(tmpfile_in_directory) {
    char cwd[PATH_MAX];
    CHECK(getcwd(cwd, sizeof cwd));
    OK(setenv("TMPDIR", cwd, 1));
    FILE *f = tmpfile();
    CHECK(f);
    fputs("text", f);
    rewind(f);
    char buf[8] = {0};
    EQ(fread(buf, 1, 8, f), 4);
    STR(buf, "text");
    EQ(fclose(f), 0);
}

CASE(unlinked_open_file) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "still here", 10), 10);
    int other = OK(open("f", O_RDONLY));
    OK(unlink("f"));
    ERR(access("f", F_OK), ENOENT);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 0);
    EQ(st.st_size, 10);
    char buf[16] = {0};
    EQ(read(other, buf, 16), 10);
    STR(buf, "still here");
    EQ(write(fd, "!", 1), 1);
    EQ(pread(other, buf, 1, 10), 1);
    OK(close(fd));
    EQ(pread(other, buf, 5, 0), 5);
    OK(fchmod(other, 0600));
    put("f", "new");
    holds("f", "new");
    EQ(pread(other, buf, 5, 0), 5);
    MEM(buf, "still", 5);
}

CASE(unlinked_in_other_process) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "data", 4), 4);
    IN_CHILD(OK(unlink("f")));
    char buf[8] = {0};
    EQ(pread(fd, buf, 4, 0), 4);
    STR(buf, "data");
    IN_CHILD({
        EQ(pread(fd, buf, 4, 0), 4);
        EQ(pwrite(fd, "DATA", 4, 0), 4);
    });
    EQ(pread(fd, buf, 4, 0), 4);
    STR(buf, "DATA");
}

CASE(unlinked_survives_exec) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "data", 4), 4);
    OK(unlink("f"));
    OK(lseek(fd, 0, SEEK_SET));
    char script[64];
    snprintf(script, sizeof script, "test \"$(cat <&%d)\" = data", fd);
    pid_t pid = OK(fork());
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(99);
    }
    EQ(wait_for(pid), 0);
}

CASE(replaced_open_file) {
    put("f", "old");
    int fd = OK(open("f", O_RDONLY));
    put("g", "new");
    OK(rename("g", "f"));
    char buf[8] = {0};
    EQ(read(fd, buf, 8), 3);
    STR(buf, "old");
    holds("f", "new");
}
