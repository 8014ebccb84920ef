# D_IL_REPORT=1 counts what was served; without it nothing is printed.
il sh -c "echo quiet > $W/f; cat $W/f" 2> err; cat err
D_IL_REPORT=1 il cat $W/f 2> err; test -s err && echo reported
grep -c '^.read  ' err
