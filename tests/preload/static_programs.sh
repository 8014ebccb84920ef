# A static program is not served and not disturbed; descriptors it does not use pass through it.
cat > s.c <<'END'
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    FILE *f = fopen(argv[1], "r");
    puts(f ? "opened" : "not there");
    fflush(stdout);
    if (argc > 2) execv(argv[2], argv + 2);
    return 0;
}
END
gcc -static -o s s.c 2> /dev/null || { printf 'not there\nnot there\ntext\nopened\n'; exit; }
il sh -c "echo text > $W/f"
il ./s $W/f
il bash -c "exec < $W/f; ./s $W/f /bin/cat"
il ./s /etc/passwd
