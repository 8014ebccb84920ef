/* Extended attributes of the user namespace. */
#include "check.h"
#include <sys/xattr.h>

static void supported(void) {
    put("f", "");
    if (setxattr("f", "user.probe", "", 0, 0) != 0 && errno == EOPNOTSUPP) SKIP("no user xattrs");
    OK(removexattr("f", "user.probe"));
}

CASE(set_get_remove) {
    supported();
    char buf[64] = {0};
    OK(setxattr("f", "user.a", "value", 5, 0));
    EQ(getxattr("f", "user.a", NULL, 0), 5);
    EQ(getxattr("f", "user.a", buf, 64), 5);
    STR(buf, "value");
    ERR(getxattr("f", "user.a", buf, 3), ERANGE);
    ERR(getxattr("f", "user.none", buf, 64), ENODATA);
    OK(setxattr("f", "user.a", "", 0, 0));
    EQ(getxattr("f", "user.a", buf, 64), 0);
    OK(removexattr("f", "user.a"));
    ERR(removexattr("f", "user.a"), ENODATA);
}

CASE(create_and_replace) {
    supported();
    ERR(setxattr("f", "user.a", "1", 1, XATTR_REPLACE), ENODATA);
    OK(setxattr("f", "user.a", "1", 1, XATTR_CREATE));
    ERR(setxattr("f", "user.a", "2", 1, XATTR_CREATE), EEXIST);
    OK(setxattr("f", "user.a", "3", 1, XATTR_REPLACE));
    ERR(setxattr("f", "user.a", "3", 1, 77), EINVAL);
}

CASE(list) {
    supported();
    OK(setxattr("f", "user.one", "1", 1, 0));
    OK(setxattr("f", "user.two", "2", 1, 0));
    char buf[256];
    ssize_t n = OK(listxattr("f", buf, sizeof buf));
    int seen = 0;
    for (char *p = buf; p < buf + n; p += strlen(p) + 1) {
        seen |= strcmp(p, "user.one") == 0;
        seen |= (strcmp(p, "user.two") == 0) << 1;
    }
    EQ(seen, 3);
    EQ(listxattr("f", NULL, 0), n);
    ERR(listxattr("f", buf, 3), ERANGE);
}

CASE(descriptor_and_directory) {
    supported();
    int fd = OK(open("f", O_RDWR));
    OK(fsetxattr(fd, "user.x", "fd", 2, 0));
    char buf[8] = {0};
    EQ(fgetxattr(fd, "user.x", buf, 8), 2);
    STR(buf, "fd");
    EQ(getxattr("f", "user.x", buf, 8), 2);
    OK(fremovexattr(fd, "user.x"));
    OK(mkdir("d", 0755));
    OK(setxattr("d", "user.d", "dir", 3, 0));
    EQ(getxattr("d", "user.d", buf, 8), 3);
}

CASE(symlinks) {
    supported();
    OK(symlink("f", "l"));
    OK(setxattr("l", "user.a", "1", 1, 0));
    EQ(getxattr("f", "user.a", NULL, 0), 1);
    ERR(lsetxattr("l", "user.a", "1", 1, 0), EPERM);
}

CASE(bad_names) {
    supported();
    ERR(setxattr("f", "nonamespace", "1", 1, 0), EOPNOTSUPP);
    ERR(setxattr("f", "", "1", 1, 0), ERANGE);
    char name[300] = "user.";
    memset(name + 5, 'n', 260);
    ERR(setxattr("f", name, "1", 1, 0), ERANGE);
    name[255] = 0;
    OK(setxattr("f", name, "1", 1, 0));
    ERR(setxattr("none", "user.a", "1", 1, 0), ENOENT);
}

CASE(sizes) {
    supported();
    static char value[70000], got[70000];
    fill(value, sizeof value, 0, 9);
    OK(setxattr("f", "user.big", value, 4000, 0));
    EQ(getxattr("f", "user.big", got, sizeof got), 4000);
    MEM(got, value, 4000);
    ERR(setxattr("f", "user.big", value, 65537, 0), E2BIG);
}

CASE(survive_rename_and_ctime) {
    supported();
    OK(setxattr("f", "user.a", "keep", 4, 0));
    OK(rename("f", "g"));
    char buf[8] = {0};
    EQ(getxattr("g", "user.a", buf, 8), 4);
    STR(buf, "keep");
    OK(link("g", "h"));
    EQ(getxattr("h", "user.a", buf, 8), 4);
}

CASE(permission) {
    supported();
    OK(setxattr("f", "user.a", "1", 1, 0));
    OK(chmod("f", 0600));
    become_nobody();
    char c;
    ERR(getxattr("f", "user.a", &c, 1), EACCES);
    ERR(setxattr("f", "user.a", "2", 1, 0), EACCES);
}
