# A program whose stderr is a file of the mount, and which cannot reach the container, goes on without it.
il bash -c 'cd $1; D_IL_CONTAINER=none timeout 10 cat f > /dev/null 2> err; echo $?; D_IL_CONTAINER=none timeout 10 true 2> err; echo $?' - $W
