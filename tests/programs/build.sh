# gcc and make: a small project, incremental builds, archives and shared libraries, running what was built
# tree: names
set -e
mkdir -p src include
cat > include/n.h <<'END'
int twice(int); int thrice(int);
END
echo '#include "n.h"
int twice(int x) { return 2 * x; }' > src/twice.c
echo '#include "n.h"
int thrice(int x) { return 3 * x; }' > src/thrice.c
echo '#include <stdio.h>
#include "n.h"
int main(void) { printf("%d %d\n", twice(21), thrice(14)); return 0; }' > src/main.c
cat > Makefile <<'END'
OBJECTS = src/twice.o src/thrice.o
all: prog shared
%.o: %.c include/n.h
	@echo CC $<
	@gcc -g -fPIC -Iinclude -c -o $@ $<
libn.a: $(OBJECTS)
	@echo AR $@
	@ar rcs $@ $^
libn.so: $(OBJECTS)
	@gcc -shared -o $@ $^
prog: src/main.o libn.a
	@echo LD $@
	@gcc -o $@ src/main.o -L. -l:libn.a
shared: src/main.o libn.so
	@gcc -o $@ src/main.o -L. -l:libn.so
clean:
	@rm -f prog shared libn.* src/*.o
.PHONY: all clean
END
make -j2 | sort
./prog
LD_LIBRARY_PATH=. ./shared
make
touch -d '+1 minute' src/twice.c; make | sort
./prog
nm libn.a | grep -c ' T '
readelf -h prog | grep -c ELF
strip prog && ./prog
gcc -E -Iinclude src/main.c | tail -n 1
gcc -save-temps -O2 -flto -Iinclude -o lto src/*.c && ./lto
rm -f lto* *.o *.i *.s *.res *.out
make clean && ls
