/* Common parts of the MPI programs: each takes the directory to work in, rank 0 prints "verified" at the end. */
#ifndef CHECK_MPI_H
#define CHECK_MPI_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int rank, ranks;

#define NEED(e)                                                                                            \
    do {                                                                                                   \
        if (!(e)) {                                                                                        \
            fprintf(stderr, "rank %d: %s:%d: %s (%s)\n", rank, __FILE__, __LINE__, #e, strerror(errno));   \
            MPI_Abort(MPI_COMM_WORLD, 1);                                                                  \
        }                                                                                                  \
    } while (0)

__attribute__((unused)) static void pattern(unsigned char *buf, size_t len, uint64_t at) {
    for (size_t i = 0; i < len; i++) {
        buf[i] = (unsigned char)(((at + i) * 0x9E3779B97F4A7C15u) >> 56);
    }
}

__attribute__((unused)) static int matches(const unsigned char *buf, size_t len, uint64_t at) {
    for (size_t i = 0; i < len; i++) {
        if (buf[i] != (unsigned char)(((at + i) * 0x9E3779B97F4A7C15u) >> 56)) return 0;
    }
    return 1;
}

static void start(int *argc, char ***argv) {
    MPI_Init(argc, argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    NEED(*argc >= 2);
}

static int end(void) {
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) printf("verified by %d processes\n", ranks);
    MPI_Finalize();
    return 0;
}
#endif
