# A mount path whose parents do not exist, parents that do, and a work tree walked from the root.
M=/tmp/pil4dfs-absent/deep/mnt
run() { LD_PRELOAD=$PRELOAD D_IL_MOUNT_POINT=$1 D_IL_POOL=tank D_IL_CONTAINER=c1 bash -c "$2"; }
run $M 'cd $D_IL_MOUNT_POINT && mkdir nested && cd nested && echo x > f && cat f && pwd && realpath f && readlink -f ../nested/f'
run $M 'cd $D_IL_MOUNT_POINT/nested && git init -q . && git add f && git -c user.name=a -c user.email=b commit -qm m && git rev-parse --show-toplevel'
run $M 'python3 -c "import os; os.makedirs(os.environ[\"D_IL_MOUNT_POINT\"] + \"/nested/a/b\"); print(os.path.isdir(os.environ[\"D_IL_MOUNT_POINT\"] + \"/nested/a/b\"))"'
mkdir -p real
run $T/real/mnt 'cd $D_IL_MOUNT_POINT/nested && ls && cd ../.. && basename $PWD'
ls real
run $M 'rm -r $D_IL_MOUNT_POINT/nested'
