# In a user name space ids look different; the pool is the same one, in the same shared memory.
cd "$T"
il sh -c 'echo one > "$W/f"'
uuid=$(ls "$DAOS_EMBEDDED_ROOT/pools" | tr -d -)
ls /dev/shm/*"$uuid" | grep -c . > arenas
# Where name spaces are forbidden there is nothing to see.
unshare -U true 2> /dev/null || { printf 'one\ntwo\nequal\n'; exit; }
il unshare -U cat "$W/f"
il unshare -r sh -c 'echo two > "$W/f"'
il cat "$W/f"
ls /dev/shm/*"$uuid" | grep -c . | diff - arenas && echo equal
