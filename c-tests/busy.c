/* execve(2), open(2), truncate(2): a program that runs is not opened for writing, and one that is open for writing is
 * not run (ETXTBSY). */
#include "check.h"
#include <spawn.h>

extern char **environ;

static void copy(const char *from, const char *to) {
    static char buf[1 << 16];
    int in = OK(open(from, O_RDONLY | O_CLOEXEC)), out = OK(open(to, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0755));
    ssize_t n;
    while ((n = OK(read(in, buf, sizeof buf))) > 0) EQ(write(out, buf, n), n);
    OK(close(in));
    OK(close(out));
}

/* Starts argv[0] in a child and returns once the child runs it; it ends when *end is closed. */
static pid_t start(char *const argv[], int *end) {
    int started[2], in[2];
    OK(pipe2(started, O_CLOEXEC));
    OK(pipe2(in, O_CLOEXEC));
    pid_t pid = OK(fork());
    if (pid == 0) {
        dup2(in[0], 0);
        execv(argv[0], argv);
        dprintf(started[1], "%s", strerrorname_np(errno));
        _exit(99);
    }
    OK(close(in[0]));
    OK(close(started[1]));
    char why[32] = "";
    OK(read(started[0], why, sizeof why - 1));
    STR(why, "");
    OK(close(started[0]));
    *end = in[1];
    return pid;
}

static void busy(const char *path) {
    ERR(open(path, O_WRONLY), ETXTBSY);
    ERR(open(path, O_RDWR), ETXTBSY);
    ERR(open(path, O_RDONLY | O_TRUNC), ETXTBSY);
    ERR(open(path, O_CREAT | O_WRONLY | O_APPEND, 0644), ETXTBSY);
    ERR(truncate(path, 0), ETXTBSY);
    CHECK(size_of(path) > 1000);
}

static void idle(const char *path) {
    OK(truncate(path, size_of(path)));
    OK(close(OK(open(path, O_WRONLY))));
    OK(close(OK(open(path, O_RDWR | O_APPEND))));
}

/* Free within five seconds: somebody else's exit or exec is waited for. */
static void becomes_idle(const char *path) {
    for (int i = 0; i < 500 && truncate(path, size_of(path)) != 0; i++) {
        EQ(errno, ETXTBSY);
        usleep(10000);
    }
    idle(path);
}

/* The errno with which running the file fails in a child; 0 when it runs. */
static int run_errno(const char *path, const char *argument) {
    pid_t pid = OK(fork());
    if (pid == 0) {
        execl(path, path, argument, (char *)NULL);
        _exit(errno);
    }
    return wait_for(pid);
}

CASE(running_program_is_not_written) {
    copy("/bin/cat", "p");
    idle("p");
    int end;
    pid_t pid = start((char *[]){"./p", NULL}, &end);
    busy("p");
    IN_CHILD(busy("p"));
    /* Everything else may happen to it. */
    char c;
    int fd = OK(open("p", O_RDONLY));
    EQ(read(fd, &c, 1), 1);
    OK(close(fd));
    OK(chmod("p", 0700));
    OK(utimensat(AT_FDCWD, "p", NULL, 0));
    OK(link("p", "q"));
    busy("q");
    OK(rename("p", "r"));
    busy("r");
    OK(unlink("q"));
    EQ(run_errno("./r", "/dev/null"), 0);
    busy("r");
    OK(close(end));
    EQ(wait_for(pid), 0);
    idle("r");
}

CASE(killed_program_lets_go) {
    copy("/bin/cat", "p");
    int end, status;
    for (int i = 0; i < 3; i++) {
        pid_t pid = start((char *[]){"./p", NULL}, &end), other = start((char *[]){"./p", NULL}, &end);
        OK(kill(pid, SIGKILL));
        OK(waitpid(pid, &status, 0));
        busy("p");
        OK(kill(other, SIGKILL));
        OK(waitpid(other, &status, 0));
        idle("p");
    }
}

CASE(removed_while_it_runs) {
    copy("/bin/cat", "p");
    int end;
    pid_t pid = start((char *[]){"./p", NULL}, &end);
    OK(unlink("p"));
    put("p", "another");
    idle("p");
    OK(close(end));
    EQ(wait_for(pid), 0);
}

CASE(open_for_writing_is_not_run) {
    copy("/bin/true", "p");
    int fd = OK(open("p", O_WRONLY)), again = OK(dup(fd)), more = OK(open("p", O_RDWR | O_APPEND));
    EQ(run_errno("./p", NULL), ETXTBSY);
    OK(close(fd));
    EQ(run_errno("./p", NULL), ETXTBSY);
    OK(close(again));
    EQ(run_errno("./p", NULL), ETXTBSY);
    OK(close(more));
    int reader = OK(open("p", O_RDONLY)), path = OK(open("p", O_PATH));
    EQ(run_errno("./p", NULL), 0);
    OK(close(reader));
    OK(close(path));
}

CASE(writer_in_another_process) {
    copy("/bin/true", "p");
    int ready[2], status;
    OK(pipe(ready));
    pid_t pid = OK(fork());
    if (pid == 0) {
        OK(open("p", O_WRONLY));
        OK(write(ready[1], "", 1));
        for (;;) pause();
    }
    char c;
    EQ(read(ready[0], &c, 1), 1);
    EQ(run_errno("./p", NULL), ETXTBSY);
    OK(kill(pid, SIGKILL));
    OK(waitpid(pid, &status, 0));
    EQ(run_errno("./p", NULL), 0);
    int fd = OK(open("p", O_WRONLY | O_CLOEXEC));
    EQ(run_errno("./p", NULL), ETXTBSY);
    IN_CHILD(OK(close(fd)));
    EQ(run_errno("./p", NULL), ETXTBSY);
    OK(close(fd));
    EQ(run_errno("./p", NULL), 0);
}

CASE(own_writer_at_exec) {
    copy("/bin/true", "p");
    pid_t pid = OK(fork());
    if (pid == 0) {
        OK(open("p", O_WRONLY | O_CLOEXEC));
        ERR(execl("./p", "p", (char *)NULL), ETXTBSY);
        _exit(7);
    }
    EQ(wait_for(pid), 7);
}

CASE(execveat_of_a_descriptor) {
    copy("/bin/true", "p");
    int fd = OK(open("p", O_RDONLY | O_CLOEXEC)), writer = OK(open("p", O_WRONLY | O_CLOEXEC));
    for (int i = 0; i < 2; i++) {
        pid_t pid = OK(fork());
        if (pid == 0) {
            fexecve(fd, (char *[]){"p", NULL}, environ);
            _exit(errno);
        }
        EQ(wait_for(pid), i == 0 ? ETXTBSY : 0);
        if (i == 0) OK(close(writer));
    }
}

CASE(scripts) {
    put("s", "#!/bin/cat\n");
    OK(chmod("s", 0755));
    int end;
    int fd = OK(open("s", O_WRONLY));
    EQ(run_errno("./s", NULL), ETXTBSY);
    OK(close(fd));
    /* A script that runs may be written; its interpreter may not. */
    put("t", "#!/bin/sh\nread x\n");
    OK(chmod("t", 0755));
    pid_t pid = start((char *[]){"./t", NULL}, &end);
    idle("t");
    OK(close(end));
    wait_for(pid);
    copy("/bin/sh", "shell");
    char cwd[PATH_MAX], text[PATH_MAX + 20];
    CHECK(getcwd(cwd, sizeof cwd));
    if (strlen(cwd) < 200) {
        snprintf(text, sizeof text, "#!%s/shell\nread x\n", cwd);
        put("u", text);
        OK(chmod("u", 0755));
        pid = start((char *[]){"./u", NULL}, &end);
        idle("u");
        busy("shell");
        OK(close(end));
        wait_for(pid);
        idle("shell");
        fd = OK(open("shell", O_WRONLY));
        EQ(run_errno("./u", NULL), ETXTBSY);
        OK(close(fd));
    }
}

CASE(forked_child_of_the_program) {
    copy("/bin/sh", "shell");
    int end;
    /* The child goes on in the same program after its parent has ended. */
    pid_t pid = start((char *[]){"./shell", "-c", "exec 3<&0; (read x <&3; read x <&3) & exit 0", NULL}, &end);
    EQ(wait_for(pid), 0);
    busy("shell");
    usleep(50000);
    busy("shell");
    OK(close(end));
    becomes_idle("shell");
}

CASE(program_that_execs_another) {
    copy("/bin/sh", "shell");
    copy("/bin/cat", "p");
    int end;
    pid_t pid = start((char *[]){"./shell", "-c", "exec /bin/cat", NULL}, &end);
    becomes_idle("shell");
    OK(close(end));
    EQ(wait_for(pid), 0);
    pid = start((char *[]){"./shell", "-c", "exec ./p", NULL}, &end);
    becomes_idle("shell");
    busy("p");
    OK(close(end));
    EQ(wait_for(pid), 0);
    idle("p");
    /* Commands of a program do not keep it once it has ended. */
    pid = start((char *[]){"./shell", "-c", "exec 3<&0; /bin/cat <&3 & exit 0", NULL}, &end);
    EQ(wait_for(pid), 0);
    becomes_idle("shell");
    OK(close(end));
}

CASE(failed_exec_changes_nothing) {
    copy("/bin/bash", "shell");
    copy("/bin/true", "p");
    OK(chmod("p", 0600));
    int end;
    pid_t pid = start((char *[]){"./shell", "-c", "exec 2>/dev/null; shopt -s execfail; exec ./none; exec ./p; exec /none; > tried; read x", NULL}, &end);
    for (int i = 0; i < 500 && access("tried", F_OK) != 0; i++) usleep(10000);
    busy("shell");
    idle("p");
    OK(close(end));
    wait_for(pid);
    idle("shell");
}

CASE(spawned) {
    copy("/bin/cat", "p");
    int in[2];
    OK(pipe2(in, O_CLOEXEC));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    pid_t pid;
    EQ(posix_spawn(&pid, "./p", &actions, NULL, (char *[]){"p", NULL}, environ), 0);
    busy("p");
    OK(close(in[1]));
    EQ(wait_for(pid), 0);
    idle("p");
    int fd = OK(open("p", O_WRONLY | O_CLOEXEC));
    EQ(posix_spawn(&pid, "./p", NULL, NULL, (char *[]){"p", NULL}, environ), ETXTBSY);
    OK(close(fd));
    idle("p");
}

CASE(vfork_child_runs_it) {
    copy("/bin/cat", "p");
    int in[2];
    OK(pipe2(in, O_CLOEXEC));
    pid_t pid = vfork();
    if (pid == 0) {
        dup2(in[0], 0);
        execl("./none", "p", (char *)NULL);
        execl("./p", "p", (char *)NULL);
        _exit(99);
    }
    OK(pid);
    busy("p");
    OK(kill(pid, SIGKILL));
    int status;
    OK(waitpid(pid, &status, 0));
    idle("p");
}

