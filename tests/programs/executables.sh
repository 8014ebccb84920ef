# scripts and programs that lie in the directory
set -e
printf '#!/bin/sh\necho script "$@"\nexit 3\n' > s; chmod +x s; ./s a 'b c' || echo "code $?"
printf '#!/usr/bin/env python3\nimport sys\nprint("python", sys.argv[1:])\n' > p; chmod +x p; ./p x
cp /bin/ls myls; ./myls s p
cp /usr/bin/env here-env; ./here-env FOO=bar sh -c 'echo $FOO'
PATH=$PWD:$PATH; s via path || echo "code $?"
printf 'echo plain text script\n' > t; chmod +x t; ./t
mkdir bin; cp myls bin/; (cd bin && ./myls); "$PWD/bin/myls" bin
ln -s bin/myls lls; ./lls bin
chmod -x s; ./s 2>/dev/null || echo "code $?"
echo 'int main(void) { return 7; }' > m.c; gcc -o m m.c; ./m || echo "code $?"
xargs -n 1 ./p < <(echo one two)
find . -name p -exec {} found \;
timeout 5 ./p timed; nice ./p nice; env -i PATH=/usr/bin:/bin ./p clean
echo 'echo nested; ./p inner' > n; chmod +x n; sh -c './n'
nohup ./p hup 2>/dev/null; setsid -w ./p sid
rm -f m myls here-env bin/myls lls
