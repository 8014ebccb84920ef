# Preload and settings are carried over exec, also when the program empties the environment.
il env -i /usr/bin/env | grep -c -e '^LD_PRELOAD=' -e '^D_IL_MOUNT_POINT=' -e '^D_IL_POOL=' -e '^D_IL_CONTAINER=' -e '^DAOS_EMBEDDED_ROOT='
il python3 -c 'import os; os.execve("/usr/bin/env", ["env"], {"LD_PRELOAD": "", "KEPT": "1"})' | grep -c -e '^KEPT=1' -e "^LD_PRELOAD=.*libpil4dfs"
il python3 -c 'import os; os.execvpe("sh", ["sh", "-c", "echo $FOO > '"$W"'/f; cat '"$W"'/f"], {"FOO": "bar", "PATH": os.environ["PATH"]})'
# A program's own preload is kept, and keeps its place.
il env LD_PRELOAD="libSegFault-none.so:$PRELOAD" sh -c 'echo "$LD_PRELOAD"' 2> /dev/null | grep -c libSegFault-none.so
