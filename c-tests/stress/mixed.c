/* Eight threads opening, writing, duplicating, spawning and forking at once for three times STRESS_SECONDS; storms of
 * signals, forks and kills for STRESS_SECONDS each. */
#define CHECK_SECONDS 170
#include "check.h"
#include <pthread.h>
#include <spawn.h>
#include <sys/time.h>
#include <time.h>

extern char **environ;
enum { THREADS = 8 };

static time_t until;

static void begin(int parts) {
    const char *s = getenv("STRESS_SECONDS");
    until = time(NULL) + parts * (s ? atoi(s) : 5);
}

static void *mix(void *arg) {
    long me = (long)arg;
    char name[64], text[64], got[64];
    for (int i = 0; time(NULL) < until; i++) {
        snprintf(name, sizeof name, "m%ld-%d", me, i % 50);
        int len = snprintf(text, sizeof text, "thread %ld round %d\n", me, i);
        int fd = OK(open(name, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0644));
        EQ(write(fd, text, len), len);
        int copy = OK(fcntl(fd, F_DUPFD_CLOEXEC, 3));
        OK(close(fd));
        EQ(pread(copy, got, sizeof got, 0), len);
        MEM(got, text, len);
        FILE *f = fopen(name, "a");
        CHECK(f);
        fputs("more", f);
        EQ(fclose(f), 0);
        struct stat st;
        OK(fstat(copy, &st));
        EQ(st.st_size, len + 4);
        if (i % 40 == 0) {
            char *argv[] = {"cat", name, NULL};
            posix_spawn_file_actions_t actions;
            posix_spawn_file_actions_init(&actions);
            char out[80];
            snprintf(out, sizeof out, "%s.out", name);
            posix_spawn_file_actions_addopen(&actions, 1, out, O_CREAT | O_WRONLY | O_TRUNC, 0644);
            pid_t pid;
            EQ(posix_spawnp(&pid, "cat", &actions, NULL, argv, environ), 0);
            EQ(wait_for(pid), 0);
            posix_spawn_file_actions_destroy(&actions);
            EQ(size_of(out), len + 4);
        }
        if (i % 25 == 0) {
            pid_t pid = OK(fork());
            if (pid == 0) {
                char c;
                _exit(pread(copy, &c, 1, 0) == 1 && c == 't' && write(copy, "z", 1) == 1 ? 0 : 1);
            }
            EQ(wait_for(pid), 0);
        }
        OK(close(copy));
        if (i % 3 == 0) OK(unlink(name));
    }
    return NULL;
}

CASE(eight_threads) {
    begin(3);
    pthread_t t[THREADS];
    for (long i = 0; i < THREADS; i++) EQ(pthread_create(&t[i], NULL, mix, (void *)i), 0);
    for (int i = 0; i < THREADS; i++) EQ(pthread_join(t[i], NULL), 0);
}

static volatile sig_atomic_t ticks;
static void tick(int sig) {
    (void)sig;
    ticks++;
}

CASE(signal_storm) {
    begin(1);
    struct sigaction sa = {.sa_handler = tick, .sa_flags = SA_RESTART};
    OK(sigaction(SIGUSR1, &sa, NULL));
    pid_t parent = getpid(), stormer = OK(fork());
    if (stormer == 0) {
        struct timespec pause = {0, 50000};
        while (kill(parent, SIGUSR1) == 0 && time(NULL) < until) nanosleep(&pause, NULL);
        _exit(0);
    }
    static unsigned char buf[50000], got[50000];
    for (int i = 0; time(NULL) < until; i++) {
        int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
        size_t len = 1 + (size_t)(i * 7919) % sizeof buf;
        off_t at = ((off_t)i * 104729) % 1000000;
        fill(buf, len, at, i);
        EQ(pwrite(fd, buf, len, at), len);
        EQ(pread(fd, got, len, at), len);
        MEM(got, buf, len);
        OK(close(fd));
        OK(rename("f", "g"));
        OK(rename("g", "f"));
        OK(mkdir("d", 0755));
        OK(rmdir("d"));
    }
    CHECK(ticks > 100);
    EQ(wait_for(stormer), 0);
}

CASE(forking_storm) {
    begin(1);
    int fd = OK(open("f", O_CREAT | O_RDWR | O_APPEND, 0644));
    int rounds = 0;
    for (; time(NULL) < until; rounds++) {
        pid_t pids[4];
        for (int p = 0; p < 4; p++) {
            pids[p] = OK(fork());
            if (pids[p] == 0) {
                char name[32];
                snprintf(name, sizeof name, "c%d", p);
                put(name, "child");
                EQ(write(fd, "0123456789", 10), 10);
                OK(unlink(name));
                _exit(0);
            }
        }
        for (int p = 0; p < 4; p++) EQ(wait_for(pids[p]), 0);
    }
    EQ(size_of("f"), rounds * 40);
}

CASE(killed_processes) {
    begin(1);
    for (int round = 0; time(NULL) < until; round++) {
        pid_t pids[4];
        for (int p = 0; p < 4; p++) {
            pids[p] = OK(fork());
            if (pids[p] == 0) {
                char a[32], b[32];
                snprintf(a, sizeof a, "k%d-a", p);
                snprintf(b, sizeof b, "k%d-b", p);
                for (;;) {
                    put(a, "whole content");
                    rename(a, b);
                    mkdir("shared", 0755);
                    rmdir("shared");
                    unlink(b);
                }
            }
        }
        usleep(1000 + (round * 7919) % 30000);
        for (int p = 0; p < 4; p++) OK(kill(pids[p], SIGKILL));
        for (int p = 0; p < 4; p++) {
            int status;
            EQ(waitpid(pids[p], &status, 0), pids[p]);
            CHECK(WIFSIGNALED(status));
        }
        put("alive", "yes");
        holds("alive", "yes");
        for (int p = 0; p < 4; p++) {
            char b[32];
            snprintf(b, sizeof b, "k%d-b", p);
            if (access(b, F_OK) == 0) holds(b, "whole content");
        }
    }
}

/* What a vfork child does until its timer ends it; the file is in the parent's table, too. */
static void work_until_killed(int fd, int round) {
    char name[32];
    signal(SIGALRM, SIG_DFL);
    struct itimerval timer = {.it_value = {0, 1 + (round * 7919) % 2000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    for (int i = 0;; i++) {
        snprintf(name, sizeof name, "v%d", i % 8);
        int mine = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0644);
        if (write(mine, "whole content", 13) < 0 || pwrite(fd, "whole content", 13, i % 8 * 13) < 0) _exit(1);
        rename(name, "moved");
        mkdir("shared", 0755);
        rmdir("shared");
        close(mine);
        unlink("moved");
    }
}

/* A vfork child works on its parent's memory; killed in a call, it leaves its parent able to work at once. */
static void *vforks(void *arg) {
    int fd = *(int *)arg;
    sigset_t none;
    sigemptyset(&none);
    for (volatile int round = 0; time(NULL) < until; round++) {
        pid_t pid = vfork();
        if (pid == 0) work_until_killed(fd, round);
        int status;
        EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
        char name[32], got[14];
        snprintf(name, sizeof name, "alive%p", arg);
        put(name, "yes");
        OK(rename(name, "alive"));
        OK(mkdir(name, 0755));
        OK(rmdir(name));
        EQ(pread(fd, got, 13, 0), 13);
        MEM(got, "whole content", 13);
    }
    return NULL;
}

static void killed_vfork_children_of(int threads) {
    int fds[4];
    pthread_t t[4];
    for (int i = 0; i < threads; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", i);
        fds[i] = OK(open(name, O_CREAT | O_RDWR, 0644));
        EQ(pwrite(fds[i], "whole content", 13, 0), 13);
        EQ(pthread_create(&t[i], NULL, vforks, &fds[i]), 0);
    }
    for (int i = 0; i < threads; i++) EQ(pthread_join(t[i], NULL), 0);
}

CASE(killed_vfork_children) {
    begin(1);
    killed_vfork_children_of(1);
}

CASE(killed_vfork_children_of_threads) {
    begin(1);
    killed_vfork_children_of(4);
}

static void on_child(int sig) {
    (void)sig;
    ticks++;
    /* In the thread that waited for the child: its calls go where they belong. */
    if (access("f0", F_OK) != 0) _exit(9);
}

/* The signal of the child's death may come before the parent's vfork has returned. */
CASE(killed_vfork_children_announced) {
    begin(1);
    struct sigaction sa = {.sa_handler = on_child, .sa_flags = SA_RESTART};
    OK(sigaction(SIGCHLD, &sa, NULL));
    killed_vfork_children_of(1);
    CHECK(ticks > 10);
}

/* A parent killed while its vfork child works does not take the child's locks away under it. */
CASE(killed_vfork_parents) {
    begin(1);
    put("whole", "whole content");
    for (volatile int round = 0; time(NULL) < until; round++) {
        pid_t parent = OK(fork());
        if (parent == 0) {
            if (vfork() == 0) work_until_killed(open("f", O_CREAT | O_RDWR, 0644), 20000 + round);
            pause();
        }
        usleep(500 + (round * 7919) % 5000);
        OK(kill(parent, SIGKILL));
        int status;
        EQ(waitpid(parent, &status, 0), parent);
        put("alive", "yes");
        holds("alive", "yes");
        holds("whole", "whole content");
    }
}
