# A program without the library keeps a descriptor for longer than anybody has held what it meant: what was opened
# since under the same number is not written to.
cat > s.c <<'END'
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc < 2 || fork() != 0) return 0;
    sleep(2);
    execv(argv[1], argv + 1);
    return 1;
}
END
gcc -static -o s s.c 2> /dev/null || { echo 'nothing foreign'; exit; }
il sh -c "exec > $W/out 2> /dev/null; exec ./s /bin/echo foreign"
il bash -c "for i in {1..30}; do exec {fd}> $W/g\$i; done; sleep 3"
il sh -c "cat $W/g*"
echo 'nothing foreign'
