# git: init, add, commit, branch, merge, clone, gc, fsck, stash, log
# tree: none
# seconds: 180
set -e
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='2020-01-02T03:04:05Z' GIT_COMMITTER_DATE='2020-01-02T03:04:05Z'
git config --global user.name Tester; git config --global user.email t@example.org
git config --global init.defaultBranch main; git config --global advice.detachedHead false
git config --global protocol.file.allow always
git init -q r; cd r
mkdir -p src/deep; for i in $(seq 100); do echo "content $i" > src/f$i; done; echo '#!/bin/sh' > run; chmod +x run; ln -s run l
git add . && git commit -qm first && git log --format='%H %s'
git status --short | wc -l
git checkout -q -b topic; echo changed > src/f1; git mv src/f2 src/deep/g2; git rm -q src/f3; git commit -qam second
git checkout -q main; echo other > src/f50; git commit -qam third; git merge -q -m merged topic; git log --format='%h %s' --graph
git diff --stat HEAD~1 | tail -n 1
echo dirty > src/f9; git stash -q; git status --short | wc -l; git stash pop -q; git diff --name-only; git checkout -q -- .
git tag -a v1 -m tag; git describe
git gc -q --prune=now && git fsck --full 2>&1 | grep -v 'dangling' || true
git count-objects -v | grep -E '^(count|in-pack)'
cd ..; git clone -q r c; git -C c log --format=%H -n 1; diff -r --exclude=.git r c && echo same tree
git clone -q --bare r b.git; git -C c push -q ../b.git HEAD:refs/heads/pushed; git -C b.git branch --list | sort
git clone -q "file://$PWD/r" f && git -C f fsck --strict 2>&1 | head -n 1
cd c; echo more > src/new; git add .; git commit -qm more; git rev-parse HEAD; git -C ../r pull -q ../c main && git -C ../r rev-parse HEAD
git worktree add -q ../w HEAD~1 && ls ../w/src | wc -l && git worktree list | wc -l
git archive HEAD | tar -tf - | wc -l
git grep -n 'content 7' | sort; git blame -s src/f10 | cut -c1-60; git reflog | wc -l
git submodule --quiet add ../r sub && git commit -qm sub && git submodule status | wc -l
git bisect start -q HEAD v1 2>/dev/null >/dev/null || true; git bisect reset -q 2>/dev/null || true
git repack -qad && git verify-pack .git/objects/pack/*.idx && git prune && echo packed
git reset -q --hard HEAD~1 && git clean -qfdx && git status --short | wc -l
