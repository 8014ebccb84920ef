/* Several threads on the same files, directories and descriptors. */
#include "check.h"
#include <time.h>
#include <pthread.h>

enum { THREADS = 8 };

static void all(void *(*body)(void *)) {
    pthread_t t[THREADS];
    for (long i = 0; i < THREADS; i++) EQ(pthread_create(&t[i], NULL, body, (void *)i), 0);
    for (int i = 0; i < THREADS; i++) EQ(pthread_join(t[i], NULL), 0);
}

static void *own_files(void *arg) {
    char name[32], text[32];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "t%ld-%d", (long)arg, i);
        snprintf(text, sizeof text, "content %ld %d", (long)arg, i);
        put(name, text);
        holds(name, text);
        if (i % 3 == 0) OK(unlink(name));
    }
    return NULL;
}

CASE(files_of_their_own) {
    all(own_files);
    int n = 0;
    DIR *d = opendir(".");
    while (readdir(d)) n++;
    EQ(n, 2 + THREADS * 133);
}

static int shared;

static void *shared_offset(void *arg) {
    char block[64];
    memset(block, 'a' + (int)(long)arg, sizeof block);
    for (int i = 0; i < 500; i++) EQ(write(shared, block, sizeof block), sizeof block);
    return NULL;
}

CASE(one_offset_for_all) {
    shared = OK(open("f", O_CREAT | O_RDWR, 0644));
    all(shared_offset);
    EQ(size_of("f"), THREADS * 500 * 64);
    OK(lseek(shared, 0, SEEK_SET));
    char block[64];
    int count[THREADS] = {0};
    for (int i = 0; i < THREADS * 500; i++) {
        EQ(read(shared, block, 64), 64);
        for (int j = 1; j < 64; j++) EQ(block[j], block[0]);
        count[block[0] - 'a']++;
    }
    for (int i = 0; i < THREADS; i++) EQ(count[i], 500);
}

static void *positional(void *arg) {
    unsigned char buf[3000];
    for (int i = 0; i < 100; i++) {
        off_t at = ((off_t)i * THREADS + (long)arg) * (off_t)sizeof buf;
        fill(buf, sizeof buf, at, 1);
        EQ(pwrite(shared, buf, sizeof buf, at), sizeof buf);
        EQ(pread(shared, buf, sizeof buf, at), sizeof buf);
        filled(buf, sizeof buf, at, 1);
    }
    return NULL;
}

CASE(parts_of_one_file) {
    shared = OK(open("f", O_CREAT | O_RDWR, 0644));
    all(positional);
    size_t len = 100 * THREADS * 3000;
    unsigned char *buf = malloc(len);
    EQ(pread(shared, buf, len, 0), len);
    filled(buf, len, 0, 1);
}

static void *same_name(void *arg) {
    (void)arg;
    long made = 0;
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "n%d", i);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd >= 0) {
            made++;
            OK(close(fd));
        } else {
            EQ(errno, EEXIST);
        }
    }
    return (void *)made;
}

CASE(exclusive_create_has_one_winner) {
    pthread_t t[THREADS];
    long total = 0;
    for (long i = 0; i < THREADS; i++) EQ(pthread_create(&t[i], NULL, same_name, (void *)i), 0);
    for (int i = 0; i < THREADS; i++) {
        void *made;
        EQ(pthread_join(t[i], &made), 0);
        total += (long)made;
    }
    EQ(total, 300);
}

static void *descriptors(void *arg) {
    (void)arg;
    for (int i = 0; i < 500; i++) {
        int fd = OK(open("f", O_RDONLY));
        int copy = OK(dup(fd));
        OK(close(fd));
        char buf[4] = {0};
        EQ(pread(copy, buf, 3, 0), 3);
        STR(buf, "abc");
        OK(close(copy));
    }
    return NULL;
}

CASE(descriptor_churn) {
    put("f", "abc");
    all(descriptors);
}

static void *renamer(void *arg) {
    char a[32], b[32];
    snprintf(a, sizeof a, "x%ld", (long)arg);
    snprintf(b, sizeof b, "y%ld", (long)arg);
    put(a, "moving");
    for (int i = 0; i < 300; i++) {
        OK(rename(a, b));
        OK(rename(b, a));
    }
    holds(a, "moving");
    return NULL;
}

CASE(renames_in_one_directory) { all(renamer); }

static void *mover(void *arg) {
    int me = (int)(long)arg;
    char from[32], to[32];
    for (int i = 0; i < 200; i++) {
        snprintf(from, sizeof from, "d%d/f%d", (me + i) % 4, me);
        snprintf(to, sizeof to, "d%d/f%d", (me + i + 1) % 4, me);
        OK(rename(from, to));
    }
    return NULL;
}

CASE(renames_between_directories) {
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "d%d", i);
        OK(mkdir(name, 0755));
    }
    for (int i = 0; i < THREADS; i++) {
        char name[32];
        snprintf(name, sizeof name, "d%d/f%d", i % 4, i);
        put(name, "x");
    }
    all(mover);
    int n = 0;
    for (int i = 0; i < THREADS; i++) {
        for (int d = 0; d < 4; d++) {
            char name[32];
            snprintf(name, sizeof name, "d%d/f%d", d, i);
            n += access(name, F_OK) == 0;
        }
    }
    EQ(n, THREADS);
}

static void *small_stack(void *arg) {
    (void)arg;
    char name[32];
    snprintf(name, sizeof name, "s%lu", (unsigned long)pthread_self());
    int fd = open(name, O_CREAT | O_RDWR, 0644);
    if (fd < 0 || write(fd, "x", 1) != 1 || close(fd) != 0 || unlink(name) != 0) return (void *)1;
    return NULL;
}

CASE(smallest_stack) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    EQ(pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN), 0);
    for (int i = 0; i < 50; i++) {
        pthread_t t;
        void *bad;
        EQ(pthread_create(&t, &attr, small_stack, NULL), 0);
        EQ(pthread_join(t, &bad), 0);
        EQ((long)bad, 0);
    }
}

static void *cancelled(void *arg) {
    (void)arg;
    char buf[1000] = {0};
    for (;;) {
        OK(lseek(shared, 0, SEEK_SET));
        EQ(write(shared, buf, sizeof buf), sizeof buf);
    }
    return NULL;
}

CASE(cancelled_threads_leave_no_locks) {
    shared = OK(open("f", O_CREAT | O_RDWR, 0644));
    for (int i = 0; i < 20; i++) {
        pthread_t t;
        EQ(pthread_create(&t, NULL, cancelled, NULL), 0);
        usleep(2000);
        EQ(pthread_cancel(t), 0);
        EQ(pthread_join(t, NULL), 0);
        EQ(pwrite(shared, "x", 1, 0), 1);
    }
}

static volatile sig_atomic_t handled;

static void on_alarm(int sig) {
    (void)sig;
    int saved = errno;
    char c;
    int fd = open("f", O_RDONLY);
    if (fd >= 0) {
        if (read(fd, &c, 1) == 1 && c == 'a') handled++;
        close(fd);
    }
    errno = saved;
}

CASE(files_in_signal_handlers) {
    put("f", "abc");
    struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    OK(sigaction(SIGUSR1, &sa, NULL));
    for (int i = 0; i < 100; i++) {
        OK(raise(SIGUSR1));
        put("g", "x");
    }
    EQ(handled, 100);
}

/* Whatever the library does around a fork, a handler can use files in it. */
CASE(files_in_signal_handlers_during_forks) {
    put("f", "abc");
    struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    OK(sigaction(SIGUSR1, &sa, NULL));
    static char weight[32 << 20];
    memset(weight, 1, sizeof weight);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer;
    OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec often = {{0, 300000}, {0, 300000}};
    OK(timer_settime(timer, 0, &often, NULL));
    for (int i = 0; i < 200; i++) {
        pid_t pid = OK(fork());
        if (pid == 0) {
            /* The child's own calls work, too. */
            raise(SIGUSR1);
            _exit(0);
        }
        EQ(wait_for(pid), 0);
    }
    OK(timer_delete(timer));
    CHECK(handled > 0);
}

static int arrived_file;
static volatile sig_atomic_t arrived[NSIG];

static void arrive(int signal) {
    arrived[signal]++;
    if (write(arrived_file, "s", 1) != 1) _exit(9);
}

CASE(signals_pending_together) {
    const int signals[] = {SIGUSR1, SIGUSR2, SIGHUP, SIGINT, SIGRTMIN};
    sigset_t set, now;
    struct stat st;
    arrived_file = OK(open("f", O_CREAT | O_WRONLY | O_APPEND, 0644));
    sigemptyset(&set);
    for (int i = 0; i < 5; i++) {
        struct sigaction action = {.sa_handler = arrive};
        OK(sigaction(signals[i], &action, NULL));
        sigaddset(&set, signals[i]);
    }
    for (int round = 1; round <= 3; round++) {
        EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
        for (int i = 0; i < 5; i++) OK(raise(signals[i]));
        EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
        for (int i = 0; i < 5; i++) EQ(arrived[signals[i]], round);
        EQ(pthread_sigmask(SIG_BLOCK, NULL, &now), 0);
        for (int i = 0; i < 5; i++) CHECK(!sigismember(&now, signals[i]));
    }
    OK(fstat(arrived_file, &st));
    EQ(st.st_size, 15);
}
