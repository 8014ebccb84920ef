/* A file for each process, written with stdio and write, renamed, checked by the neighbour, listed by all. */
#include "check_mpi.h"
#include <dirent.h>

enum { BLOCK = 1 << 20, ROUNDS = 4 };

int main(int argc, char **argv) {
    start(&argc, &argv);
    char dir[PATH_MAX - 64], path[PATH_MAX], done[PATH_MAX];
    snprintf(dir, sizeof dir, "%s/checkpoints", argv[1]);
    if (rank == 0) NEED(mkdir(dir, 0755) == 0);
    MPI_Barrier(MPI_COMM_WORLD);
    snprintf(path, sizeof path, "%s/part.%d.tmp", dir, rank);
    snprintf(done, sizeof done, "%s/part.%d", dir, rank);
    unsigned char *buf = malloc(BLOCK);
    FILE *f = fopen(path, "w");
    NEED(f);
    for (int i = 0; i < ROUNDS; i++) {
        pattern(buf, BLOCK, (uint64_t)rank * 1000000007u + (uint64_t)i * BLOCK);
        NEED(fwrite(buf, 1, BLOCK, f) == BLOCK);
    }
    NEED(fclose(f) == 0);
    NEED(rename(path, done) == 0);
    MPI_Barrier(MPI_COMM_WORLD);
    int other = (rank + 1) % ranks, seen = 0;
    snprintf(done, sizeof done, "%s/part.%d", dir, other);
    int fd = open(done, O_RDONLY);
    NEED(fd >= 0);
    for (int i = 0; i < ROUNDS; i++) {
        NEED(read(fd, buf, BLOCK) == BLOCK);
        NEED(matches(buf, BLOCK, (uint64_t)other * 1000000007u + (uint64_t)i * BLOCK));
    }
    NEED(close(fd) == 0);
    DIR *d = opendir(dir);
    NEED(d);
    for (struct dirent *e; (e = readdir(d));) seen += strncmp(e->d_name, "part.", 5) == 0;
    NEED(closedir(d) == 0);
    NEED(seen == ranks);
    return end();
}
