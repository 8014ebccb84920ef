# A program built with AddressSanitizer, its runtime before ours.
cat > a.c <<'END'
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    char *text = malloc(100);
    FILE *f = fopen(argv[1], "w");
    if (argc < 2 || !f) return 1;
    fputs("sanitized\n", f);
    fclose(f);
    f = fopen(argv[1], "r");
    if (!f || !fgets(text, 100, f)) return 2;
    fputs(text, stdout);
    fclose(f);
    free(text);
    return 0;
}
END
gcc -fsanitize=address -o a a.c || exit 1
PRELOAD="$(gcc -print-file-name=libasan.so):$PRELOAD" il ./a $W/f
