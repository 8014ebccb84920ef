# Programs named in D_IL_BYPASS_LIST are not served.
il sh -c "echo text > $W/f"
D_IL_BYPASS_LIST=cat il cat $W/f 2> /dev/null || echo bypassed
D_IL_BYPASS_LIST=other:cat:more il cat $W/f 2> /dev/null || echo bypassed
D_IL_BYPASS_LIST=other il cat $W/f
