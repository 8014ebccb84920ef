# Commits with core.fsync=all: each is there, and the repository is whole.
export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b HOME=/nonexistent
case $1 in
run)
    cd "$W" || exit 1
    git init -q repository && cd repository || exit 1
    git config core.fsync all
    git config gc.auto 0
    # Commits are flushed; what init and config write is not.
    sync -f . || exit 1
    n=1
    while [ $n -le 8 ]; do
        echo "content $n" > file$((n % 3))
        git add . && git commit -q -m "number $n" || exit 1
        # The branch was flushed before it got its name; git leaves it at that.
        sync .git/refs/heads || exit 1
        mark $n
        n=$((n + 1))
    done
    ;;
check)
    [ "$2" = 0 ] && exit 0
    cd "$W/repository" || exit 1
    count=$(git rev-list --count HEAD) || exit 1
    [ "$count" -ge "$2" ] || { echo "$count commits"; exit 1; }
    git fsck --full --strict 2>&1 | grep -v '^dangling\|^notice' && exit 1
    [ "$(git show "HEAD:file$((count % 3))")" = "content $count" ] || exit 1
    ;;
esac
exit 0
