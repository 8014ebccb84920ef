# Programs that forbid memory that is both writable and executable (PR_SET_MDWE) are served too.
il sh -c "echo text > $W/f"
il python3 -c '
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(65, 1, 0, 0, 0) != 0: print("text"); sys.exit()
os.execvp("cat", ["cat", sys.argv[1]])' $W/f
