/* One file, written by all processes in strides with pwrite, read back by the next process. */
#include "check_mpi.h"

enum { BLOCK = 100000, ROUNDS = 20 };

int main(int argc, char **argv) {
    start(&argc, &argv);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/shared", argv[1]);
    int fd = open(path, O_CREAT | O_RDWR, 0644);
    NEED(fd >= 0);
    unsigned char *buf = malloc(BLOCK);
    for (int i = 0; i < ROUNDS; i++) {
        off_t at = ((off_t)i * ranks + rank) * BLOCK;
        pattern(buf, BLOCK, at);
        NEED(pwrite(fd, buf, BLOCK, at) == BLOCK);
    }
    NEED(fsync(fd) == 0);
    MPI_Barrier(MPI_COMM_WORLD);
    struct stat st;
    NEED(fstat(fd, &st) == 0 && st.st_size == (off_t)ROUNDS * ranks * BLOCK);
    for (int i = 0; i < ROUNDS; i++) {
        off_t at = ((off_t)i * ranks + (rank + 1) % ranks) * BLOCK;
        NEED(pread(fd, buf, BLOCK, at) == BLOCK);
        NEED(matches(buf, BLOCK, at));
    }
    NEED(close(fd) == 0);
    return end();
}
