/* mkdir(2), rmdir(2), getdents64(2) and the libc's directory functions. */
#include "check.h"
#include <fts.h>
#include <glob.h>
#include <sys/syscall.h>

static void populate(const char *dir, int count) {
    char name[PATH_MAX];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s/file-%05d", dir, i);
        OK(close(OK(open(name, O_CREAT | O_WRONLY, 0644))));
    }
}

static int listed(const char *dir) {
    DIR *d = opendir(dir);
    CHECK(d);
    int n = 0;
    struct dirent *e;
    errno = 0;
    while ((e = readdir(d))) n += e->d_name[0] != '.';
    EQ(errno, 0);
    EQ(closedir(d), 0);
    return n;
}

CASE(mkdir_errors) {
    OK(mkdir("d", 0755));
    ERR(mkdir("d", 0755), EEXIST);
    ERR(mkdir("none/d", 0755), ENOENT);
    put("f", "");
    ERR(mkdir("f", 0755), EEXIST);
    ERR(mkdir("f/d", 0755), ENOTDIR);
    OK(symlink("x", "l"));
    ERR(mkdir("l", 0755), EEXIST);
    ERR(mkdir(".", 0755), EEXIST);
}

CASE(rmdir_errors) {
    OK(mkdir("d", 0755));
    put("d/f", "");
    ERR(rmdir("d"), ENOTEMPTY);
    ERR(rmdir("d/f"), ENOTDIR);
    ERR(rmdir("none"), ENOENT);
    ERR(rmdir("d/."), EINVAL);
    ERR(rmdir("d/.."), ENOTEMPTY);
    OK(unlink("d/f"));
    OK(rmdir("d"));
    ERR(rmdir("d"), ENOENT);
}

CASE(unlink_is_not_for_directories) {
    OK(mkdir("d", 0755));
    ERR(unlink("d"), EISDIR);
    ERR(unlinkat(AT_FDCWD, "d", 0), EISDIR);
    put("f", "");
    ERR(unlinkat(AT_FDCWD, "f", AT_REMOVEDIR), ENOTDIR);
    OK(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
}

CASE(dot_entries_and_types) {
    put("f", "");
    OK(mkdir("d", 0755));
    OK(symlink("f", "l"));
    OK(mkfifo("p", 0644));
    struct stat here, up;
    OK(stat(".", &here));
    OK(stat("..", &up));
    DIR *d = opendir(".");
    CHECK(d);
    struct dirent *e;
    int seen = 0;
    while ((e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0) {
            EQ(e->d_ino, here.st_ino);
            EQ(e->d_type, DT_DIR);
            seen |= 1;
        } else if (strcmp(e->d_name, "..") == 0) {
            EQ(e->d_type, DT_DIR);
            seen |= 2;
        } else {
            struct stat st;
            OK(lstat(e->d_name, &st));
            EQ(e->d_ino, st.st_ino);
            EQ(e->d_type, IFTODT(st.st_mode));
            seen |= e->d_name[0] == 'f' ? 4 : e->d_name[0] == 'd' ? 8 : e->d_name[0] == 'l' ? 16 : 32;
        }
    }
    EQ(seen, 63);
}

CASE(thousand_entries) {
    OK(mkdir("d", 0755));
    populate("d", 1000);
    EQ(listed("d"), 1000);
}

CASE(telldir_seekdir) {
    OK(mkdir("d", 0755));
    populate("d", 100);
    DIR *d = opendir("d");
    CHECK(d);
    long at[128];
    char names[128][64];
    int n = 0;
    struct dirent *e;
    for (at[0] = telldir(d); (e = readdir(d)); at[++n] = telldir(d)) strcpy(names[n], e->d_name);
    EQ(n, 102);
    for (int i = n - 1; i >= 0; i--) {
        seekdir(d, at[i]);
        e = readdir(d);
        CHECK(e);
        STR(e->d_name, names[i]);
    }
    rewinddir(d);
    e = readdir(d);
    CHECK(e);
    STR(e->d_name, names[0]);
    seekdir(d, at[n]);
    CHECK(readdir(d) == NULL);
}

CASE(remove_while_reading) {
    OK(mkdir("d", 0755));
    populate("d", 3000);
    DIR *d = opendir("d");
    CHECK(d);
    int n = 0;
    struct dirent *e;
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.') continue;
        OK(unlinkat(dirfd(d), e->d_name, 0));
        n++;
    }
    EQ(n, 3000);
    OK(rmdir("d"));
}

CASE(stable_under_change) {
    OK(mkdir("d", 0755));
    populate("d", 500);
    DIR *d = opendir("d");
    CHECK(d);
    char seen[500] = {0};
    struct dirent *e;
    int step = 0;
    while ((e = readdir(d))) {
        int i;
        char name[300];
        if (sscanf(e->d_name, "file-%d", &i) == 1) {
            EQ(seen[i], 0);
            seen[i] = 1;
        }
        snprintf(name, sizeof name, "d/new-%d", step);
        if (step < 400) OK(close(OK(open(name, O_CREAT | O_WRONLY, 0644))));
        snprintf(name, sizeof name, "d/new-%d", step - 10);
        if (step >= 10 && step < 300) OK(unlink(name));
        step++;
    }
    for (int i = 0; i < 500; i++) EQ(seen[i], 1);
}

CASE(small_getdents_buffer) {
    OK(mkdir("d", 0755));
    populate("d", 20);
    int fd = OK(open("d", O_RDONLY | O_DIRECTORY));
    char buf[64];
    int n = 0;
    long got;
    while ((got = OK(syscall(SYS_getdents64, fd, buf, 48))) > 0) {
        for (long at = 0; at < got;) {
            struct dirent64 *e = (void *)(buf + at);
            n++;
            at += e->d_reclen;
        }
    }
    EQ(n, 22);
    EQ(lseek(fd, 0, SEEK_SET), 0);
    ERR(syscall(SYS_getdents64, fd, buf, 10), EINVAL);
    put("f", "");
    int file = OK(open("f", O_RDONLY));
    ERR(syscall(SYS_getdents64, file, buf, 64), ENOTDIR);
}

CASE(dup_shares_position) {
    OK(mkdir("d", 0755));
    populate("d", 10);
    int a = OK(open("d", O_RDONLY | O_DIRECTORY));
    int b = OK(dup(a));
    char buf[4096];
    CHECK(syscall(SYS_getdents64, a, buf, 4096) > 0);
    EQ(syscall(SYS_getdents64, b, buf, 4096), 0);
}

CASE(removed_directory) {
    OK(mkdir("d", 0755));
    int fd = OK(open("d", O_RDONLY | O_DIRECTORY));
    OK(rmdir("d"));
    ERR(openat(fd, "f", O_CREAT | O_WRONLY, 0644), ENOENT);
    ERR(mkdirat(fd, "e", 0755), ENOENT);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 0);
    DIR *d = fdopendir(fd);
    CHECK(d);
    CHECK(readdir(d) == NULL);
}

CASE(fdopendir_and_dirfd) {
    OK(mkdir("d", 0755));
    populate("d", 5);
    int fd = OK(open("d", O_RDONLY | O_DIRECTORY));
    DIR *d = fdopendir(fd);
    CHECK(d);
    EQ(dirfd(d), fd);
    int n = 0;
    while (readdir(d)) n++;
    EQ(n, 7);
    OK(closedir(d));
    ERR(close(fd), EBADF);
    put("f", "");
    fd = OK(open("f", O_RDONLY));
    errno = 0;
    CHECK(fdopendir(fd) == NULL);
}

static int only_files(const struct dirent *e) { return e->d_name[0] == 'f'; }

CASE(scandir_sorted) {
    OK(mkdir("d", 0755));
    populate("d", 50);
    struct dirent **list;
    int n = scandir("d", &list, only_files, alphasort);
    EQ(n, 50);
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%05d", i);
        STR(list[i]->d_name, name);
    }
    int dir = OK(open(".", O_RDONLY | O_DIRECTORY));
    EQ(scandirat(dir, "d", &list, only_files, alphasort), 50);
}

CASE(glob_patterns) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/x", 0755));
    populate("d", 30);
    populate("d/x", 3);
    glob_t g;
    EQ(glob("d/file-0000?", 0, NULL, &g), 0);
    EQ(g.gl_pathc, 10);
    EQ(glob("d/*/file-*", 0, NULL, &g), 0);
    EQ(g.gl_pathc, 3);
    STR(g.gl_pathv[0], "d/x/file-00000");
    EQ(glob("d/none*", 0, NULL, &g), GLOB_NOMATCH);
    char cwd[PATH_MAX], pattern[PATH_MAX + 8];
    CHECK(getcwd(cwd, sizeof cwd));
    snprintf(pattern, sizeof pattern, "%s/*/x", cwd);
    EQ(glob(pattern, GLOB_MARK, NULL, &g), 0);
    EQ(g.gl_pathc, 1);
}

static int walk_files, walk_dirs, walk_links;

static int walk(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)path;
    (void)st;
    walk_files += flag == FTW_F;
    walk_dirs += flag == FTW_D;
    walk_links += flag == FTW_SL;
    CHECK(ftw->level < 5);
    return 0;
}

CASE(nftw_walk) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/a", 0755));
    OK(mkdir("d/a/b", 0755));
    OK(symlink("a", "d/l"));
    populate("d/a", 3);
    populate("d/a/b", 4);
    OK(nftw("d", walk, 8, FTW_PHYS));
    EQ(walk_files, 7);
    EQ(walk_dirs, 3);
    EQ(walk_links, 1);
    walk_dirs = 0;
    OK(nftw("d", walk, 2, FTW_PHYS | FTW_CHDIR));
    EQ(walk_dirs, 3);
}

CASE(fts_walk) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/a", 0755));
    populate("d/a", 3);
    OK(symlink("a", "d/l"));
    char *roots[] = {"d", NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL, NULL);
    CHECK(fts);
    int files = 0, dirs = 0, links = 0;
    FTSENT *e;
    while ((e = fts_read(fts))) {
        files += e->fts_info == FTS_F;
        dirs += e->fts_info == FTS_D;
        links += e->fts_info == FTS_SL;
        CHECK(e->fts_info != FTS_ERR && e->fts_info != FTS_NS && e->fts_info != FTS_DNR);
    }
    OK(fts_close(fts));
    EQ(files, 3);
    EQ(dirs, 2);
    EQ(links, 1);
}

CASE(deep_tree) {
    char path[2000] = "";
    for (int i = 0; i < 100; i++) {
        sprintf(path + strlen(path), "%sdeep-%02d", i ? "/" : "", i);
        OK(mkdir(path, 0755));
    }
    strcat(path, "/f");
    put(path, "bottom");
    holds(path, "bottom");
}

CASE(sticky_directory) {
    if (geteuid() != 0) SKIP("needs root");
    OK(mkdir("d", 0777));
    OK(chmod("d", 01777));
    put("d/rootfile", "");
    become_nobody();
    ERR(unlink("d/rootfile"), EPERM);
    ERR(rename("d/rootfile", "d/x"), EPERM);
    put("d/mine", "");
    OK(unlink("d/mine"));
}

CASE(setgid_directory) {
    if (geteuid() != 0) SKIP("needs root");
    OK(mkdir("d", 0755));
    OK(chown("d", 0, 1234));
    OK(chmod("d", 02755));
    put("d/f", "");
    OK(mkdir("d/e", 0755));
    struct stat st;
    OK(stat("d/f", &st));
    EQ(st.st_gid, 1234);
    OK(stat("d/e", &st));
    EQ(st.st_gid, 1234);
    EQ(st.st_mode & 02000, 02000);
}

CASE(created_by_other_process_is_listed) {
    OK(mkdir("d", 0755));
    EQ(listed("d"), 0);
    IN_CHILD(populate("d", 5));
    EQ(listed("d"), 5);
    IN_CHILD(OK(unlink("d/file-00002")));
    EQ(listed("d"), 4);
    struct stat st;
    ERR(stat("d/file-00002", &st), ENOENT);
}
