/* fork(2), vfork(2), clone, posix_spawn(3), exec: descriptors, offsets, cwd and programs that lie in the directory. */
#include "check.h"
#include <sys/mman.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>

extern char **environ;

static int run(const char *script) {
    pid_t pid = OK(fork());
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(99);
    }
    return wait_for(pid);
}

CASE(fork_shares_offset) {
    put("f", "abcdef");
    int fd = OK(open("f", O_RDONLY));
    char c;
    EQ(read(fd, &c, 1), 1);
    IN_CHILD({
        EQ(read(fd, &c, 1), 1);
        EQ(c, 'b');
        OK(lseek(fd, 4, SEEK_SET));
    });
    EQ(read(fd, &c, 1), 1);
    EQ(c, 'e');
    IN_CHILD(OK(close(fd)));
    EQ(read(fd, &c, 1), 1);
    EQ(c, 'f');
}

/* kcmp(2), KCMP_FILE */
static int same_description(pid_t a, pid_t b, int fd_a, int fd_b) { return OK(syscall(SYS_kcmp, a, b, 0, fd_a, fd_b)) == 0; }

CASE(what_parent_and_child_open_is_no_one_description) {
    if (syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0) < 0) SKIP("no kcmp(2) here");
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    int own = OK(open("f", O_RDWR));
    IN_CHILD({
        CHECK(same_description(getppid(), getpid(), fd, fd));
        int other = OK(open("f", O_RDWR));
        CHECK(!same_description(getppid(), getpid(), own, other));
        EQ(write(other, "ab", 2), 2);
        EQ(write(fd, "c", 1), 1);
    });
    EQ(write(fd, "d", 1), 1);
    holds("f", "cd");
}

CASE(writes_of_parent_and_child) {
    int fd = OK(open("f", O_CREAT | O_WRONLY, 0644));
    for (int i = 0; i < 20; i++) {
        IN_CHILD(EQ(write(fd, "c", 1), 1));
        EQ(write(fd, "p", 1), 1);
    }
    EQ(size_of("f"), 40);
}

CASE(grandchildren) {
    int fd = OK(open("f", O_CREAT | O_WRONLY, 0644));
    IN_CHILD(IN_CHILD(IN_CHILD(EQ(write(fd, "deep", 4), 4))));
    holds("f", "deep");
}

enum ending { EXITS, EXECS, IS_KILLED, EXITS_AFTER_RAW_FORK };

/* A child does nothing until its parent, which has just opened and mapped a file, is gone: the file is still the child's. */
static void orphan_of(enum ending ending) {
    int p[2];
    OK(pipe(p));
    pid_t middle = OK(fork());
    if (middle == 0) {
        int fd = OK(open("f", O_CREAT | O_RDWR | O_TRUNC, 0644));
        EQ(write(fd, "mine", 4), 4);
        char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(map != MAP_FAILED);
        pid_t parent = getpid();
        if (OK(ending == EXITS_AFTER_RAW_FORK ? syscall(SYS_fork) : fork()) > 0) {
            if (ending == EXECS) execlp("sh", "sh", "-c", "test -e f", NULL);
            if (ending == IS_KILLED) kill(parent, SIGKILL);
            _exit(0);
        }
        while (getppid() == parent) usleep(1000);
        usleep(20000);
        char got[4];
        EQ(pread(fd, got, 4, 0), 4);
        MEM(got, "mine", 4);
        map[1] = 'a';
        EQ(pread(fd, got, 4, 0), 4);
        MEM(got, "mane", 4);
        EQ(write(fd, "!", 1), 1);
        OK(munmap(map, 4096));
        EQ(write(p[1], "x", 1), 1);
        _exit(0);
    }
    int status;
    EQ(waitpid(middle, &status, 0), middle);
    OK(close(p[1]));
    /* What the parent had is free for others if it was let go. */
    for (int i = 0; i < 8; i++) {
        char name[8];
        snprintf(name, sizeof name, "g%d", i);
        int fd = OK(open(name, O_CREAT | O_RDWR, 0644));
        EQ(write(fd, "other", 5), 5);
    }
    char c;
    EQ(read(p[0], &c, 1), 1);
    holds("f", "mane!");
    OK(unlink("f"));
}

CASE(orphans_keep_their_files) {
    for (int i = 0; i < 10; i++) {
        orphan_of(EXITS);
        orphan_of(EXITS_AFTER_RAW_FORK);
    }
}

CASE(children_of_executing_parents_keep_their_files) {
    for (int i = 0; i < 10; i++) orphan_of(EXECS);
}

CASE(children_of_killed_parents_keep_their_files) {
    for (int i = 0; i < 10; i++) orphan_of(IS_KILLED);
}

/* A program that has done nothing but inherit a file forks and ends: the file is its child's, whoever comes meanwhile. */
CASE(children_of_idle_programs_keep_their_files) {
    put("f", "inherited");
    int p[2], fd = OK(open("f", O_RDONLY));
    OK(pipe(p));
    pid_t pid = OK(fork());
    if (pid == 0) {
        OK(dup2(fd, 0));
        OK(dup2(p[1], 1));
        execlp("setsid", "setsid", "-f", "sh", "-c", "sleep 0.3; exec cat", NULL);
        _exit(9);
    }
    OK(close(p[1]));
    OK(close(fd));
    EQ(wait_for(pid), 0);
    for (int i = 0; i < 8; i++) EQ(run("test -e f"), 0);
    char got[10];
    EQ(read(p[0], got, sizeof got), 9);
    MEM(got, "inherited", 9);
}

/* A daemon's way: the parent has ended before the child makes its first call. */
CASE(parent_ends_before_its_child_begins) {
    put("f", "abc");
    volatile unsigned *go = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(go != MAP_FAILED);
    int told[2];
    OK(pipe(told));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int fd = OK(open("f", O_RDWR | O_APPEND)), cut = OK(open("g", O_CREAT | O_RDWR, 0644));
        OK(unlink("g"));
        if (OK(fork()) == 0) {
            while (*go == 0) {
            }
            EQ(write(fd, "def", 3), 3);
            EQ(write(cut, "x", 1), 1);
            holds("f", "abcdef");
            OK(write(told[1], "", 1));
            _exit(0);
        }
        _exit(0);
    }
    OK(close(told[1]));
    EQ(wait_for(pid), 0);
    *go = 1;
    char c;
    EQ(read(told[0], &c, 1), 1);
}

CASE(exec_with_redirections) {
    put("in", "hello\n");
    EQ(run("cat < in > out; echo more >> out; cat in out > both 2> err; test ! -s err"), 0);
    holds("both", "hello\nhello\nmore\n");
}

CASE(exec_inherits_offset) {
    put("f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    OK(lseek(fd, 4, SEEK_SET));
    pid_t pid = OK(fork());
    if (pid == 0) {
        OK(dup2(fd, 0));
        execl("/bin/sh", "sh", "-c", "head -c 3 > out", (char *)NULL);
        _exit(99);
    }
    EQ(wait_for(pid), 0);
    holds("out", "456");
    CHECK(lseek(fd, 0, SEEK_CUR) >= 7);
}

CASE(exec_closes_cloexec) {
    put("f", "x");
    int keep = OK(open("f", O_RDONLY)), gone = OK(open("f", O_RDONLY | O_CLOEXEC));
    char script[200];
    snprintf(script, sizeof script, "test -e /proc/self/fd/%d && test ! -e /proc/self/fd/%d && test \"$(cat <&%d)\" = x",
             keep, gone, keep);
    EQ(run(script), 0);
}

CASE(exec_with_empty_environment) {
    put("f", "text\n");
    pid_t pid = OK(fork());
    if (pid == 0) {
        char *argv[] = {"cat", "f", NULL}, *none[] = {NULL};
        int out = OK(open("out", O_CREAT | O_WRONLY, 0644));
        OK(dup2(out, 1));
        execve("/bin/cat", argv, none);
        _exit(99);
    }
    EQ(wait_for(pid), 0);
    holds("out", "text\n");
}

CASE(env_minus_i) {
    put("f", "text\n");
    EQ(run("env -i cat f > out"), 0);
    holds("out", "text\n");
}

CASE(failed_exec_changes_nothing) {
    put("f", "abc");
    int fd = OK(open("f", O_RDWR));
    OK(lseek(fd, 1, SEEK_SET));
    char *argv[] = {"none", NULL};
    ERR(execv("none", argv), ENOENT);
    ERR(execv("f", argv), EACCES);
    OK(mkdir("d", 0755));
    ERR(execv("d", argv), EACCES);
    char c;
    EQ(read(fd, &c, 1), 1);
    EQ(c, 'b');
}

CASE(run_script_in_directory) {
    put("s", "#!/bin/sh\necho \"$0 $1 $2\" > out\nexit 7\n");
    OK(chmod("s", 0755));
    EQ(run("./s one 'two words'"), 7);
    holds("out", "./s one two words\n");
    put("t", "#!/usr/bin/env -S sh -e\ncat t | wc -l > out2\n");
    OK(chmod("t", 0755));
    EQ(run("./t"), 0);
    holds("out2", "2\n");
}

CASE(script_whose_interpreter_is_a_script) {
    put("inner", "#!/bin/sh\necho \"via $1\" > out\n");
    OK(chmod("inner", 0755));
    char cwd[PATH_MAX], text[PATH_MAX + 32];
    CHECK(getcwd(cwd, sizeof cwd));
    snprintf(text, sizeof text, "#!%s/inner\n", cwd);
    if (strlen(text) > 200) SKIP("path too long for #!");
    put("outer", text);
    OK(chmod("outer", 0755));
    pid_t pid = OK(fork());
    if (pid == 0) {
        char *argv[] = {"./outer", NULL};
        execv("./outer", argv);
        _exit(99);
    }
    EQ(wait_for(pid), 0);
    holds("out", "via ./outer\n");
}

static void copy(const char *from, const char *to) {
    static char buf[1 << 16];
    int in = OK(open(from, O_RDONLY)), out = OK(open(to, O_CREAT | O_WRONLY | O_TRUNC, 0755));
    ssize_t n;
    while ((n = OK(read(in, buf, sizeof buf))) > 0) EQ(write(out, buf, n), n);
    OK(close(in));
    OK(close(out));
}

CASE(run_binary_in_directory) {
    copy("/bin/cat", "mycat");
    put("f", "bytes\n");
    EQ(run("./mycat f > out"), 0);
    holds("out", "bytes\n");
    char cwd[PATH_MAX], path[PATH_MAX + 16];
    CHECK(getcwd(cwd, sizeof cwd));
    snprintf(path, sizeof path, "%s/mycat", cwd);
    pid_t pid = OK(fork());
    if (pid == 0) {
        char *argv[] = {"mycat", "/dev/null", NULL};
        execv(path, argv);
        _exit(99);
    }
    EQ(wait_for(pid), 0);
    int fd = OK(open("mycat", O_RDONLY));
    pid = OK(fork());
    if (pid == 0) {
        char *argv[] = {"mycat", "/dev/null", NULL};
        fexecve(fd, argv, environ);
        _exit(99);
    }
    EQ(wait_for(pid), 0);
    OK(chmod("mycat", 0644));
    char *argv[] = {"mycat", NULL};
    ERR(execv("./mycat", argv), EACCES);
}

CASE(proc_self_exe) {
    copy("/bin/readlink", "myreadlink");
    EQ(run("test \"$(./myreadlink /proc/self/exe)\" = \"$PWD/myreadlink\""), 0);
}

CASE(path_search) {
    OK(mkdir("bin", 0755));
    put("bin/hello", "#!/bin/sh\necho hello > out\n");
    OK(chmod("bin/hello", 0755));
    EQ(run("PATH=$PWD/bin:$PATH; hello"), 0);
    holds("out", "hello\n");
}

CASE(spawn_with_actions) {
    put("in", "spawned\n");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "in", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "out", O_CREAT | O_WRONLY | O_TRUNC, 0644);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    char *argv[] = {"cat", NULL};
    pid_t pid;
    EQ(posix_spawnp(&pid, "cat", &actions, NULL, argv, environ), 0);
    EQ(wait_for(pid), 0);
    holds("out", "spawned\n");
    put("after", "fine");
    holds("after", "fine");
}

CASE(spawn_chdir_and_close) {
    OK(mkdir("d", 0755));
    put("d/f", "inner\n");
    int fd = OK(open("d/f", O_RDONLY));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, "d");
    posix_spawn_file_actions_addclose(&actions, fd);
    char script[100];
    snprintf(script, sizeof script, "test -f f && cat f > out && test ! -e /proc/self/fd/%d", fd);
    char *argv[] = {"sh", "-c", script, NULL};
    pid_t pid;
    EQ(posix_spawn(&pid, "/bin/sh", &actions, NULL, argv, environ), 0);
    EQ(wait_for(pid), 0);
    holds("d/out", "inner\n");
    char c;
    EQ(read(fd, &c, 1), 1);
    ERR(access("f", F_OK), ENOENT);
    char *bad[] = {"none", NULL};
    EQ(posix_spawn(&pid, "./none", NULL, NULL, bad, environ), ENOENT);
}

CASE(spawn_closes_from_and_opens) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawn_file_actions_addopen(&actions, 1, "out", O_CREAT | O_WRONLY | O_TRUNC, 0644);
    put("before", "x");
    char *argv[] = {"echo", "spawned", NULL};
    pid_t pid;
    EQ(posix_spawnp(&pid, "echo", &actions, NULL, argv, environ), 0);
    EQ(wait_for(pid), 0);
    holds("out", "spawned\n");
    holds("before", "x");
}

/* A link outside the directory leads to a script inside it whose interpreter there is not. */
CASE(spawn_that_fails_behind_a_link) {
    put("script", "#!/no/such/interpreter\n");
    OK(chmod("script", 0755));
    char outside[] = "/tmp/check-link-XXXXXX", target[PATH_MAX], link[PATH_MAX];
    CHECK(mkdtemp(outside));
    CHECK(getcwd(target, sizeof target - 10));
    strcat(target, "/script");
    snprintf(link, sizeof link, "%s/link", outside);
    OK(symlink(target, link));
    pid_t child = OK(fork());
    if (child == 0) {
        /* The library says so if its own memory is not what it should be. */
        int err = open("err", O_CREAT | O_WRONLY, 0644);
        if (err < 0 || dup2(err, 2) != 2) _exit(2);
        for (int i = 0; i < 100; i++) {
            char *argv[] = {"link", NULL}, name[20];
            pid_t pid;
            if (posix_spawn(&pid, link, NULL, NULL, argv, environ) != ENOENT) _exit(1);
            snprintf(name, sizeof name, "f%d", i);
            put(name, name);
        }
        exit(0);
    }
    int status = wait_for(child);
    OK(unlink(link));
    OK(rmdir(outside));
    EQ(status, 0);
    holds("err", "");
    for (int i = 0; i < 100; i++) {
        char name[20];
        snprintf(name, sizeof name, "f%d", i);
        holds(name, name);
    }
}

static void *write_until_the_end(void *file) {
    for (;;) {
        if (pwrite(*(int *)file, "abcdefgh", 8, 0) != 8) abort();
        int other = open("g", O_RDONLY);
        if (other < 0 || close(other) != 0) abort();
    }
}

/* Threads that still work when the process ends see nothing of it. */
CASE(exit_while_threads_work) {
    put("g", "x");
    for (int i = 0; i < 100; i++) {
        pid_t pid = OK(fork());
        if (pid == 0) {
            int fd = open("f", O_CREAT | O_RDWR, 0644);
            pthread_t thread;
            for (int t = 0; t < 2; t++) pthread_create(&thread, NULL, write_until_the_end, &fd);
            usleep(1000);
            exit(0);
        }
        EQ(wait_for(pid), 0);
    }
    holds("f", "abcdefgh");
}

CASE(vfork_child_has_its_own_table) {
    put("f", "abc");
    put("g", "xyz");
    volatile int fd = OK(open("f", O_RDONLY)), other = OK(open("g", O_RDONLY));
    pid_t pid = vfork();
    if (pid == 0) {
        dup2(other, fd);
        close(other);
        char c;
        _exit(read(fd, &c, 1) == 1 && c == 'x' ? 0 : 1);
    }
    EQ(wait_for(pid), 0);
    char c;
    EQ(read(fd, &c, 1), 1);
    EQ(c, 'a');
    EQ(read(other, &c, 1), 1);
    EQ(c, 'y');
}

CASE(vfork_then_exec) {
    put("f", "x\n");
    for (int i = 0; i < 20; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            execl("/bin/sh", "sh", "-c", "cat f >> out", (char *)NULL);
            _exit(99);
        }
        EQ(wait_for(pid), 0);
    }
    EQ(size_of("out"), 40);
}

CASE(popen_and_system) {
    put("f", "one\ntwo\n");
    FILE *p = popen("cat f", "r");
    CHECK(p);
    char line[16];
    CHECK(fgets(line, sizeof line, p));
    STR(line, "one\n");
    EQ(pclose(p), 0);
    p = popen("cat > g", "w");
    CHECK(p);
    fputs("piped", p);
    EQ(pclose(p), 0);
    holds("g", "piped");
    EQ(system("mv g h && test -f h"), 0);
}

CASE(child_keeps_cwd) {
    OK(mkdir("d", 0755));
    put("d/f", "x");
    OK(chdir("d"));
    EQ(run("test -f f && cd .. && test -d d && test -f d/f"), 0);
    IN_CHILD({
        OK(chdir(".."));
        OK(access("d/f", F_OK));
    });
    OK(access("f", F_OK));
}

static int clone_body(void *arg) {
    (void)arg;
    int fd = open("f", O_CREAT | O_WRONLY, 0644);
    return write(fd, "cloned", 6) == 6 ? 0 : 1;
}

CASE(clone_call) {
    char *stack = malloc(1 << 16);
    pid_t pid = OK(clone(clone_body, stack + (1 << 16), SIGCHLD, NULL));
    EQ(wait_for(pid), 0);
    holds("f", "cloned");
}

CASE(raw_fork) {
    pid_t pid = OK(syscall(SYS_fork));
    if (pid == 0) {
        put("f", "raw");
        _exit(0);
    }
    EQ(wait_for(pid), 0);
    holds("f", "raw");
}

CASE(load_library_from_directory) {
    put("lib.c", "int answer(void) { return 42; }\n");
    if (run("gcc -shared -fPIC -o lib.so lib.c") != 0) FAIL("gcc");
    void *lib = dlopen("./lib.so", RTLD_NOW);
    if (!lib) FAIL("%s", dlerror());
    int (*answer)(void) = (int (*)(void))dlsym(lib, "answer");
    CHECK(answer);
    EQ(answer(), 42);
    EQ(dlclose(lib), 0);
}

static void *spawner(void *arg) {
    for (int i = 0; i < 10; i++) {
        char name[32], script[64];
        snprintf(name, sizeof name, "t%ld-%d", (long)arg, i);
        snprintf(script, sizeof script, "echo x > %s", name);
        EQ(system(script), 0);
        holds(name, "x\n");
    }
    return NULL;
}

CASE(spawn_in_threads) {
    pthread_t t[4];
    for (long i = 0; i < 4; i++) EQ(pthread_create(&t[i], NULL, spawner, (void *)i), 0);
    for (int i = 0; i < 4; i++) EQ(pthread_join(t[i], NULL), 0);
}

CASE(exec_from_thread_keeps_files) {
    put("f", "abc");
    int fd = OK(open("f", O_RDONLY));
    OK(lseek(fd, 1, SEEK_SET));
    char script[64];
    snprintf(script, sizeof script, "cat <&%d > out", fd);
    EQ(system(script), 0);
    holds("out", "bc");
}

CASE(killed_writer_leaves_whole_writes) {
    int pipes[2];
    OK(pipe(pipes));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int fd = OK(open("f", O_CREAT | O_WRONLY | O_APPEND, 0644));
        char block[4096];
        memset(block, 'k', sizeof block);
        for (;;) {
            EQ(write(fd, block, sizeof block), sizeof block);
            if (write(pipes[1], "x", 1) != 1) _exit(1);
        }
    }
    char c;
    for (int i = 0; i < 50; i++) EQ(read(pipes[0], &c, 1), 1);
    OK(kill(pid, SIGKILL));
    int status;
    EQ(waitpid(pid, &status, 0), pid);
    off_t size = size_of("f");
    CHECK(size >= 50 * 4096);
    put("g", "still works");
    holds("g", "still works");
}
