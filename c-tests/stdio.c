/* stdio on files of the directory: streams, seeking, reopening, wide characters. */
#include "check.h"
#include <wchar.h>

CASE(read_write_seek) {
    FILE *f = fopen("f", "w+");
    CHECK(f);
    for (int i = 0; i < 1000; i++) CHECK(fprintf(f, "line %d\n", i) > 0);
    rewind(f);
    char line[32];
    CHECK(fgets(line, sizeof line, f));
    STR(line, "line 0\n");
    EQ(ungetc('Q', f), 'Q');
    EQ(getc(f), 'Q');
    EQ(fseeko(f, -9, SEEK_END), 0);
    CHECK(fgets(line, sizeof line, f));
    STR(line, "line 999\n");
    EQ(ftello(f), size_of("f"));
    EQ(fgetc(f), EOF);
    CHECK(feof(f));
    EQ(fclose(f), 0);
}

CASE(modes) {
    CHECK(fopen("none", "r") == NULL);
    EQ(errno, ENOENT);
    put("f", "abc");
    CHECK(fopen("f", "wx") == NULL);
    EQ(errno, EEXIST);
    FILE *f = fopen("f", "r+");
    CHECK(f);
    fputc('X', f);
    EQ(fclose(f), 0);
    holds("f", "Xbc");
    f = fopen("f", "a+");
    CHECK(f);
    EQ(fgetc(f), 'X');
    fputs("d", f);
    EQ(fclose(f), 0);
    holds("f", "Xbcd");
    f = fopen("f", "we");
    CHECK(f);
    EQ(fcntl(fileno(f), F_GETFD), FD_CLOEXEC);
    EQ(size_of("f"), 0);
}

CASE(fdopen_and_fileno) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    FILE *f = fdopen(fd, "w+");
    CHECK(f);
    EQ(fileno(f), fd);
    fputs("hello", f);
    EQ(fflush(f), 0);
    holds("f", "hello");
    EQ(fclose(f), 0);
    ERR(close(fd), EBADF);
}

CASE(freopen_standard_stream) {
    int keep = OK(dup(1));
    CHECK(freopen("out", "w", stdout));
    printf("to file\n");
    fflush(stdout);
    OK(dup2(keep, 1));
    holds("out", "to file\n");
}

CASE(binary_blocks) {
    FILE *f = fopen("f", "w+");
    CHECK(f);
    static unsigned char buf[123457];
    fill(buf, sizeof buf, 0, 31);
    EQ(fwrite(buf, 1, sizeof buf, f), sizeof buf);
    EQ(fseek(f, 1000, SEEK_SET), 0);
    EQ(fread(buf, 1, 5000, f), 5000);
    filled(buf, 5000, 1000, 31);
    EQ(fclose(f), 0);
    EQ(size_of("f"), 123457);
}

CASE(unbuffered_and_getline) {
    FILE *f = fopen("f", "w");
    CHECK(f);
    setvbuf(f, NULL, _IONBF, 0);
    fputs("one\ntwo", f);
    holds("f", "one\ntwo");
    FILE *r = fopen("f", "r");
    CHECK(r);
    char *line = NULL;
    size_t cap = 0;
    EQ(getline(&line, &cap, r), 4);
    EQ(getline(&line, &cap, r), 3);
    EQ(getline(&line, &cap, r), -1);
}

CASE(flushed_at_exit) {
    pid_t pid = OK(fork());
    if (pid == 0) {
        FILE *f = fopen("f", "w");
        fputs("buffered", f);
        exit(0);
    }
    EQ(wait_for(pid), 0);
    holds("f", "buffered");
}

CASE(wide_stream) {
    FILE *f = fopen("f", "w");
    CHECK(f);
    CHECK(fwprintf(f, L"wide %d\n", 7) > 0);
    EQ(fclose(f), 0);
    holds("f", "wide 7\n");
}

CASE(remove_call) {
    put("f", "");
    OK(mkdir("d", 0755));
    OK(remove("f"));
    OK(remove("d"));
    ERR(remove("f"), ENOENT);
}
