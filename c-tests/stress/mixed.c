/* Eight threads opening, writing, duplicating, spawning and forking at once for three times STRESS_SECONDS; storms of
 * signals, forks and kills for STRESS_SECONDS each. */
#define CHECK_SECONDS 170
#include "check.h"
#include <pthread.h>
#include <spawn.h>
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
