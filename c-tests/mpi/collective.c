/* MPI-IO: a collective write of an interleaved view with the hints of ROMIO_HINTS, independent and collective reads. */
#include "check_mpi.h"

enum { PIECE = 4096, PIECES = 256 };

static void need(int code) {
    if (code != MPI_SUCCESS) {
        char text[MPI_MAX_ERROR_STRING];
        int len;
        MPI_Error_string(code, text, &len);
        fprintf(stderr, "rank %d: %s\n", rank, text);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}

int main(int argc, char **argv) {
    start(&argc, &argv);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/collective", argv[1]);
    MPI_File file;
    need(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    MPI_Datatype view;
    MPI_Type_vector(PIECES, PIECE, PIECE * ranks, MPI_BYTE, &view);
    MPI_Type_commit(&view);
    need(MPI_File_set_view(file, (MPI_Offset)rank * PIECE, MPI_BYTE, view, "native", MPI_INFO_NULL));
    unsigned char *buf = malloc((size_t)PIECE * PIECES);
    for (int i = 0; i < PIECES; i++) {
        pattern(buf + (size_t)i * PIECE, PIECE, ((uint64_t)i * (uint64_t)ranks + (uint64_t)rank) * PIECE);
    }
    need(MPI_File_write_all(file, buf, PIECE * PIECES, MPI_BYTE, MPI_STATUS_IGNORE));
    need(MPI_File_sync(file));
    MPI_Barrier(MPI_COMM_WORLD);
    memset(buf, 0, (size_t)PIECE * PIECES);
    need(MPI_File_seek(file, 0, MPI_SEEK_SET));
    need(MPI_File_read_all(file, buf, PIECE * PIECES, MPI_BYTE, MPI_STATUS_IGNORE));
    for (int i = 0; i < PIECES; i++) {
        NEED(matches(buf + (size_t)i * PIECE, PIECE, ((uint64_t)i * (uint64_t)ranks + (uint64_t)rank) * PIECE));
    }
    MPI_Offset size;
    need(MPI_File_get_size(file, &size));
    NEED(size == (MPI_Offset)PIECE * PIECES * ranks);
    need(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    uint64_t at = (uint64_t)((rank + 1) % ranks) * PIECE * PIECES;
    need(MPI_File_read_at(file, (MPI_Offset)at, buf, PIECE * PIECES, MPI_BYTE, MPI_STATUS_IGNORE));
    NEED(matches(buf, (size_t)PIECE * PIECES, at));
    need(MPI_File_close(&file));
    if (rank == 0) need(MPI_File_delete(path, MPI_INFO_NULL));
    return end();
}
